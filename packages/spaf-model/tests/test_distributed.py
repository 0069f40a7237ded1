import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest

from spaf_model import InputError, SpatialFormer
from spaf_model.distributed import Processes


@pytest.fixture
def several(adata: anndata.AnnData, slide: Path) -> anndata.AnnData:
    """An odd number of cells, an empty one in either half."""
    dense = adata[:59].X.toarray()
    dense[[3, 40]] = 0
    changed = adata[:59].copy()
    changed.X = dense
    changed.write_h5ad(slide)
    return changed


def test_two_processes_give_what_one_gives(
    several: anndata.AnnData, slide: Path, directory: Path, model: SpatialFormer
) -> None:
    before = slide.read_bytes()
    output = slide.parent / "out.h5ad"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "spaf_model.cli", "embed", str(slide), "--model", str(directory), "-o", str(output)]
    finished = subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    written = anndata.read_h5ad(output)
    model.embed(several)
    np.testing.assert_allclose(written.obsm["X_SpaF"], several.obsm["X_SpaF"], atol=1e-5)
    record = written.uns["spaf"]["embed"]
    assert record["n_empty"] == 2
    assert record["parameters"]["n_processes"] == 2
    assert slide.read_bytes() == before
    assert finished.stderr.count("Wrote obsm") == 1


def test_bad_cell_in_the_share_of_one_process_ends_both(adata: anndata.AnnData, slide: Path, directory: Path) -> None:
    dense = adata.X.toarray()
    dense[50, 1] = -1
    adata.X = dense
    adata.write_h5ad(slide)
    output = slide.parent / "out.h5ad"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # As torchrun starts them, without its own process, so that both exit codes can be seen.
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "spaf_model.cli", "embed", str(slide), "-m", str(directory), "-o", str(output)]
    processes = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | address | {"RANK": rank})
        for rank in ("0", "1")
    ]
    for process in processes:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 2
        assert error == "spaf-model: Counts must not be negative: cell 'cell50' has the value -1.0.\n"
    assert not output.exists()


def test_other_commands_work_alone(
    run: Callable[..., int],
    slide: Path,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    output = slide.parent / "out.h5ad"
    assert run("colocalization", slide, "--model", directory, "-o", output) == 2
    assert capsys.readouterr().err == ("spaf-model: colocalization works in one process: start it without torchrun.\n")
    assert not output.exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run("colocalization", slide, "--model", directory, "-o", output) == 0


def test_sharing_needs_processes(model: SpatialFormer, adata: anndata.AnnData) -> None:
    with pytest.raises(InputError, match="needs an initialised torch.distributed: start with torchrun"):
        model.embed(adata, distributed=True)


@pytest.mark.parametrize("n_cells", [0, 1, 7, 100])
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_shares_are_a_partition(n_cells: int, n: int) -> None:
    processes = Processes()
    processes.n = n
    shares = [processes.share(n_cells, rank) for rank in range(n)]
    assert [cell for start, stop in shares for cell in range(start, stop)] == list(range(n_cells))
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 1


def test_a_process_of_several_ends_without_tearing_down(tmp_path):
    """Code that is run at exit is not: a thread that needs the interpreter then would abort the process."""
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, sys\n"
        "from spaf_model import ends_at_once\n"
        "atexit.register(lambda: print('torn down'))\n"
        "ends_at_once(lambda: (print('done'), sys.exit(int(sys.argv[1]))))()\n"
    )
    for world_size, code, printed in (("2", 0, "done\n"), ("2", 3, "done\n"), ("1", 3, "done\ntorn down\n")):
        environment = {**os.environ, "WORLD_SIZE": world_size}
        ended = subprocess.run(
            [sys.executable, str(script), str(code)], env=environment, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout) == (code, printed), ended.stderr

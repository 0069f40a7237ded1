"""Data that the tests of this package share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from distributed import LocalCluster

from spaf_data import Transcripts, read_transcripts, simulate_bundle

N_CELLS = 400
N_GENES = 40


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated bundle of 400 cells and 40 genes; not to be written to."""
    return simulate_bundle(tmp_path_factory.mktemp("simulated") / "bundle", n_cells=N_CELLS, n_genes=N_GENES, seed=3)


@pytest.fixture(scope="session")
def transcripts(bundle: Path) -> Transcripts:
    """The transcripts of `bundle`."""
    return read_transcripts(bundle)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a dask scheduler with one worker of two threads, in this process."""
    # No longer than a module: its threads draw from `random`, which Hypothesis takes for a fault of other tests.
    # Port 0: the usual port of the dashboard may be taken, which is a warning.
    options = {"processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def table(bundle: Path) -> pd.DataFrame:
    """The first rows of the table of transcripts of `bundle`, to be changed at will."""
    return pd.read_parquet(bundle / "transcripts.parquet").head(5000).copy()


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Write a table as ``transcripts.parquet``, ``.csv`` or ``.csv.gz`` into a new folder and return the folder."""

    def write(table: pd.DataFrame, name: str = "transcripts.parquet", **options: object) -> Path:
        folder = tmp_path / f"written-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        if name.endswith(".parquet"):
            table.to_parquet(folder / name, index=False, **options)
        else:
            table.to_csv(folder / name, index=False, **options)
        return folder

    return write

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spaf_model import InputError
from spaf_model.spatialformer.published.checkpoint import read_checkpoint


class Hostile:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_reads_tensors_hyper_parameters_and_steps(published: Any) -> None:
    published.save(hyper_parameters={"outer_config": {"lr": 1e-3, "pool": None}})
    checkpoint = read_checkpoint(published.checkpoint)
    assert checkpoint.name == "last.ckpt"
    assert checkpoint.version == "v2"
    assert checkpoint.step == 196_000
    assert checkpoint.hyper_parameters["outer_config"] == {"lr": 1e-3, "pool": None}
    assert checkpoint.tensors["pair_head.weight"].shape == (2, 32)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "hostile.ckpt"
    content = {"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": Hostile(tmp_path / "made")}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"hostile\.ckpt asks for (posix|nt)\.mkdir and was not loaded") as error:
        read_checkpoint(path)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("value", "name"), [(Path("configs"), "pathlib"), (np.float64(0.5), "numpy")])
def test_objects_in_hyper_parameters_are_refused_by_name(published: Any, value: object, name: str) -> None:
    published.save(hyper_parameters={"value": value})
    with pytest.raises(InputError, match=rf"asks for {name}.* only tensors, plain containers and numbers"):
        read_checkpoint(published.checkpoint)


def test_damaged_files_are_one_sentence(published: Any) -> None:
    published.save()
    content = published.checkpoint.read_bytes()
    for damaged in (b"", b"hello", content[:50], content[: len(content) // 2], content[:-1]):
        published.checkpoint.write_bytes(damaged)
        with pytest.raises(InputError, match=r"last\.ckpt is not a checkpoint, or is damaged") as error:
            read_checkpoint(published.checkpoint)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", [{"model": {}}, {"state_dict": {}}, {"state_dict": [1]}, [1, 2]])
def test_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt is not a Lightning checkpoint: it has no 'state_dict'"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_tensors_that_are_none_or_not_finite(published: Any) -> None:
    published.save(change=lambda tensors: tensors.update({"pair_head.weight": 3}))
    with pytest.raises(InputError, match=r"has a int under 'pair_head\.weight' where a tensor is expected"):
        read_checkpoint(published.checkpoint)
    published.save(change=lambda tensors: tensors["pair_head.weight"][0].fill_(float("nan")))
    with pytest.raises(InputError, match=r"tensor pair_head\.weight has values that are not finite"):
        read_checkpoint(published.checkpoint)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.ckpt")

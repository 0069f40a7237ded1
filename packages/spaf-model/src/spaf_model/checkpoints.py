"""Reading the pickles of torch without running anything that is in them."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spaf_model.errors import InputError


def read_weights_only(path: Path) -> Any:
    """Return the content of a checkpoint, read with weights-only loading.

    Raises
    ------
    InputError
        If the file is damaged, or asks for anything but tensors, plain containers and numbers.
    FileNotFoundError
        If there is no such file.
    """
    try:
        # Mapped, so that the optimiser's state, twice the size of the weights, is never read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        asked_for = re.search(r"GLOBAL (\S+)", str(error))
        if asked_for:
            raise InputError(
                f"{path} asks for {asked_for[1]} and was not loaded: "
                "only tensors, plain containers and numbers are read from a checkpoint."
            ) from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} is not a checkpoint, or is damaged: {reason}") from error


def check_tensors(path: Path, tensors: Mapping[Any, Any]) -> None:
    """Refuse what is no tensor, or has values that are not finite.

    Raises
    ------
    InputError
        Naming the first of them.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{path} has a {type(tensor).__name__} under {name!r} where a tensor is expected.")
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: the tensor {name} has values that are not finite.")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Model directories: ``config.json``, ``vocabulary.json``, ``model.safetensors`` and ``card.md``."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from spaf_model._files import read_json_object
from spaf_model.errors import InputError
from spaf_model.outputs import check_output
from spaf_model.vocabulary import Vocabulary

FORMAT_VERSION = 1
FIRST_FAMILY = "spatialformer"  # that of a directory that does not say its family
CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "vocabulary.json", "model.safetensors", "card.md"
_LISTED = 6  # tensors named in one message


@dataclasses.dataclass(frozen=True)
class ModelDirectory:
    """Contents of a model directory; what the configuration means, its family knows."""

    path: Path
    family: str
    config: dict[str, Any]
    vocabulary: Vocabulary
    tensors: dict[str, torch.Tensor]
    card: str


def write_model_directory(
    path: str | Path,
    *,
    family: str,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    tensors: Mapping[str, torch.Tensor],
    card: str,
) -> None:
    """Write a model directory, whole or not at all; an older model directory of that name is replaced.

    Raises
    ------
    InputError
        If `path` is something else than a model directory or an empty folder, or a weight is NaN or infinite.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    check_output(path, folder=True)
    _restore(path)
    if path.exists() and not _replaceable(path):
        raise InputError(f"{path} exists and is not a model directory; nothing was written.")
    bad = not_finite(tensors)
    if bad:
        raise InputError(f"The weights of the model for {path} are not all finite; nothing was written. {bad}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        new = staging / "new"
        new.mkdir()
        content = {"family": family, "format_version": FORMAT_VERSION, "config": dict(config)}
        (new / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        vocabulary.save(new / VOCABULARY_FILE)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, new / WEIGHTS_FILE)
        # safetensors lets only the owner read its file, which would leave a shared model unreadable.
        (new / WEIGHTS_FILE).chmod((new / CONFIG_FILE).stat().st_mode)
        (new / CARD_FILE).write_text(card, "utf-8")
        _replace(new, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(new: Path, path: Path) -> None:
    """Rename a folder to `path`; what is there is removed after that, and is back after an error or an interrupt."""
    earlier = _earlier(path)
    try:
        if path.exists():
            path.rename(earlier)
        new.rename(path)
    except BaseException:
        if earlier.exists() and not path.exists():
            earlier.rename(path)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _restore(path: Path) -> None:
    """Undo, or finish, what a killed process began: put back a folder that it had moved aside, or remove that one."""
    earlier = _earlier(path)
    if not earlier.exists():
        return
    if path.exists():
        shutil.rmtree(earlier, ignore_errors=True)
    else:
        earlier.rename(path)


def _earlier(path: Path) -> Path:
    path = Path(os.path.realpath(path))
    return path.parent / f".{path.name}.replaced"


def _replaceable(path: Path) -> bool:
    return path.is_dir() and ((path / CONFIG_FILE).is_file() or not any(path.iterdir()))


def read_model_directory(path: str | Path) -> ModelDirectory:
    """Read a model directory; tensors are read, nothing is unpickled.

    Raises
    ------
    InputError
        If a file is missing, damaged or of a newer format version, or a weight is NaN or infinite.
    """
    path = Path(path)
    if not path.is_dir():
        there = "there is no such folder"
        if _earlier(path).is_dir():
            there += f"; {_earlier(path)} is what a process that was killed meant to replace, so give it back its name"
        raise InputError(f"{path} is not a model directory: {there}.")
    missing = [name for name in (CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE) if not (path / name).is_file()]
    if missing:
        raise InputError(f"{path} is not a model directory: it has no {', '.join(missing)}.")
    content = read_json_object(path / CONFIG_FILE, newest=FORMAT_VERSION)
    family = content.get("family", FIRST_FAMILY)
    if not isinstance(family, str):
        raise InputError(f"{path / CONFIG_FILE} has the family {family!r}, which is no name.")
    if not isinstance(content.get("config"), dict):
        raise InputError(f"{path / CONFIG_FILE} has no 'config'.")
    vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
    try:
        with safe_open(path / WEIGHTS_FILE, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except SafetensorError as error:
        raise InputError(f"{path / WEIGHTS_FILE} is damaged or truncated: {error}.") from error
    bad = not_finite(tensors)
    if bad:
        raise InputError(f"{path / WEIGHTS_FILE} cannot be used: it holds weights that are NaN or infinite. {bad}.")
    card_file = path / CARD_FILE
    card = card_file.read_text("utf-8") if card_file.is_file() else ""
    return ModelDirectory(
        path=path, family=family, config=content["config"], vocabulary=vocabulary, tensors=tensors, card=card
    )


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str:
    """Say which tensors hold NaN or infinite values, and how many; empty if none does."""
    counts = {
        name: int((~torch.isfinite(tensor)).sum()) for name, tensor in tensors.items() if tensor.is_floating_point()
    }
    found = [f"{name}: {n:,} of {tensors[name].numel():,} values" for name, n in counts.items() if n]
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(found[:_LISTED]) + more


def tensor_problems(expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> str:
    """Say which tensors are missing, unexpected or misshapen; empty if none is.

    Parameters
    ----------
    expected, found
        Shapes of tensors by name.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {tuple(found[name])} instead of {tuple(expected[name])}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    problems = []
    for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            problems.append(f"{kind}: {', '.join(names[:_LISTED])}{more}")
    return "; ".join(problems)


def load_tensors(module: nn.Module, tensors: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Give a module (which may be on the meta device) its tensors.

    Raises
    ------
    InputError
        If tensors are missing, unexpected or misshapen; the sentence lists them.
    """
    expected = module.state_dict()
    problems = tensor_problems(
        {name: tensor.shape for name, tensor in expected.items()},
        {name: tensor.shape for name, tensor in tensors.items()},
    )
    if problems:
        raise InputError(f"The tensors of {source} do not fit its configuration; {problems}.")
    kinds = [name for name in expected if tensors[name].is_floating_point() != expected[name].is_floating_point()]
    if kinds:
        raise InputError(
            f"The tensors of {source} do not fit its configuration; {kinds[0]} is {tensors[kinds[0]].dtype}."
        )
    converted = {name: tensors[name].to(expected[name].dtype) for name in expected}
    bad = not_finite(converted)
    if bad:
        raise InputError(f"The tensors of {source} are too large for the precision of the model. {bad}.")
    negative = [name for name, tensor in converted.items() if name.endswith("running_var") and bool((tensor < 0).any())]
    if negative:
        raise InputError(f"The tensors of {source} are no weights of a model: {negative[0]}, a variance, is below 0.")
    module.load_state_dict(converted, assign=True)

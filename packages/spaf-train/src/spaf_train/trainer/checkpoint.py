"""Checkpoints: written whole or not at all, the last few kept and the best."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch

from spaf_model import InputError

_STEP = re.compile(r"step-(\d+)\.pt")
_BEST = re.compile(r"best-(\d+)\.pt")
_UNFINISHED = re.compile(r"\.(step|best)-\d+\.pt\..+")


class Checkpoints:
    """The checkpoints of a run.

    ``step-NNNNNN.pt`` is the whole state of the run after a step, ``best-NNNNNN.pt`` the weights that were best by
    validation. Every file is written to a temporary name, flushed to the disk and renamed, so a run that is killed or
    a disk that is full leaves the previous ones as they were; `sweep` removes the temporary files of killed runs.

    Parameters
    ----------
    folder
        Where they are; made when the first is saved.
    keep
        How many of the last whole states are kept.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, state: dict[str, Any], *, step: int, best_step: int | None) -> Path:
        """Write the whole state after a step, then drop what is no longer needed.

        `best_step` is the step of the best weights so far; best weights of other steps are dropped.
        """
        path = self._write(state, f"step-{step:06d}.pt")
        for number, old in self._find(_STEP)[: -self.keep]:
            if number != step:
                old.unlink()
        for number, old in self._find(_BEST):
            if number != best_step:
                old.unlink()
        return path

    def save_best(self, state: dict[str, Any], *, step: int) -> Path:
        """Write the weights that are the best so far; older ones stay until the next whole state is safe."""
        return self._write(state, f"best-{step:06d}.pt")

    def sweep(self) -> None:
        """Remove what runs that were killed while they wrote a checkpoint have left; call it before the first step.

        Nothing else may be writing here meanwhile.
        """
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if _UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def latest(self) -> Path | None:
        """Return the last whole state, or None."""
        found = self._find(_STEP)
        return found[-1][1] if found else None

    def best(self, step: int) -> Path:
        """Return the path of the best weights of a step."""
        return self.folder / f"best-{step:06d}.pt"

    def _find(self, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        matches = ((pattern.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in matches if match)

    def _write(self, state: dict[str, Any], name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return self.folder / name


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values only, nothing is executed.

    Raises
    ------
    InputError
        If the file is not a checkpoint, or is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"The checkpoint {path} is missing.") from None
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise InputError(f"{path} cannot be read as a checkpoint ({type(error).__name__}); delete it.") from error
    if not isinstance(state, dict):
        raise InputError(f"{path} is not a checkpoint of a training run.")
    return state


def state_to_resume(checkpoints: Checkpoints, identity: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """Return the last whole state of a run, or None where there is none.

    Parameters
    ----------
    checkpoints
        Of the run.
    identity
        What the run has to agree in: ``corpus`` (`fingerprint`) and ``config``, options by name.
    out
        Folder of the run, for messages.

    Raises
    ------
    InputError
        If the run in `out` has another configuration or other data.
    """
    latest = checkpoints.latest()
    if latest is None:
        return None
    state = load_checkpoint(latest)
    if state["identity"]["corpus"] != identity["corpus"]:
        raise InputError(
            f"{out} was trained on another corpus; choose another folder or give the corpus it began with."
        )
    former, now = state["identity"]["config"], identity["config"]
    changed = [name for name in sorted({*former, *now}) if former.get(name) != now.get(name)]
    unknown = [name for name in changed if name not in former]
    if unknown:
        raise InputError(
            f"{out} was begun by another version of spaf-train, which has no option {', '.join(unknown)}: go on with "
            "that version, or begin a new run, which --from takes the weights of a model that is there."
        )
    if changed:
        details = ", ".join(f"{name} was {former.get(name)!r} and is {now.get(name)!r}" for name in changed)
        raise InputError(f"{out} was begun with another configuration: {details}.")
    return state

"""Reading a published checkpoint, a pickle of Lightning, without running anything that is in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spaf_model.checkpoints import check_tensors, read_weights_only, sha256_of
from spaf_model.errors import InputError

if TYPE_CHECKING:
    from spaf_model.spatialformer.config import PublishedVersion

_HEADS: dict[str, PublishedVersion] = {"adjprojector.fc.weight": "v1", "adjprojector.project_i.weight": "v2"}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What is used of a published checkpoint."""

    name: str  # of the file, without folders
    sha256: str
    tensors: dict[str, torch.Tensor]  # by published names
    hyper_parameters: dict[str, Any]
    step: int | None  # optimiser steps, where recorded

    @property
    def version(self) -> PublishedVersion:
        """The generation, told by the co-localisation head.

        Raises
        ------
        InputError
            If there is no such head, or both.
        """
        versions = [version for name, version in _HEADS.items() if name in self.tensors]
        if len(versions) != 1:
            raise InputError(
                f"{self.name} is not a published SpatialFormer checkpoint: "
                f"of {' (v1) and '.join(_HEADS)} (v2) it must have exactly one, and has {len(versions)}."
            )
        return versions[0]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the tensors and hyper-parameters of a Lightning checkpoint with weights-only loading.

    Raises
    ------
    InputError
        If the file is damaged, asks for anything but tensors, plain containers and numbers, or has no ``state_dict`` of
        finite tensors.
    FileNotFoundError
        If there is no such file.
    """
    sha256 = sha256_of(path)
    content = read_weights_only(path)
    tensors = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not tensors:
        raise InputError(f"{path} is not a Lightning checkpoint: it has no 'state_dict'.")
    check_tensors(path, tensors)
    hyper_parameters = content.get("hyper_parameters")
    step = content.get("global_step")
    return Checkpoint(
        name=path.name,
        sha256=sha256,
        tensors=tensors,
        hyper_parameters=hyper_parameters if isinstance(hyper_parameters, dict) else {},
        step=step if isinstance(step, int) else None,
    )

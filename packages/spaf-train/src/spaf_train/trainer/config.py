"""How long a run is, when it stops to look, and on what it computes."""

from __future__ import annotations

import dataclasses
from typing import Literal

from spaf_train._checks import require, require_at_least
from spaf_train._options import check_types
from spaf_train.trainer.distributed import Device


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long a run is, when it stops to look, and on what it computes."""

    steps: int = 1000  # optimizer steps
    log_every: int = 10  # steps between two training rows of metrics.csv, each the mean since the one before
    validate_every: int = 100  # steps between two validations; there is one after the last step in any case
    validation_inputs: int = 2048  # inputs of the validation split that are looked at, the same each time
    checkpoint_every: int = 100  # steps between two checkpoints; there is one after the last step in any case
    keep: int = 2  # whole states kept
    best_metric: str = (
        "loss"  # what the best weights are best in: loss or a column of validation; last: the last step's
    )
    patience: int = 0  # validations without a better one after which the run ends; 0: it goes to its last step
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast, the weights stay fp32
    activation_checkpointing: bool = False  # layers are computed again in the backward pass: less memory, more time
    compile: bool = False  # torch.compile of the blocks: a slow first step, then somewhat shorter ones
    tensorboard: bool = False  # write the columns of metrics.csv for TensorBoard too, into RUN/tensorboard
    peak_tflops: float = 0.0  # of one GPU in this precision; above 0 the progress bar shows the share that is used
    workers: int = 0  # processes that build batches ahead of the steps; 0: each is built when it is needed
    threads: int = 0  # of torch on the CPU; 0: as torch chooses. Equal results need an equal number
    device: Device = "auto"  # auto: a GPU where there is one

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("steps", "log_every", "validate_every", "validation_inputs", "checkpoint_every", "keep"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("peak_tflops", self.peak_tflops, 0.0)
        for name in ("patience", "workers", "threads"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, not {getattr(self, name)}.")

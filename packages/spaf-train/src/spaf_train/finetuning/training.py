"""Fine-tuning by the one trainer: it ends when validation no longer improves, and keeps the weights that were best."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from spaf_train.trainer.config import RunConfig
from spaf_train.trainer.loop import Trainer
from spaf_train.trainer.memory import MemoryCheckpoints, MemoryLog
from spaf_train.trainer.signals import StopRequest

if TYPE_CHECKING:
    from spaf_model import Network
    from spaf_train.finetuning.config import FinetuneConfig
    from spaf_train.objectives import ObjectiveSet
    from spaf_train.stream.batch import Stream
    from spaf_train.trainer.distributed import Ranks


@dataclasses.dataclass(frozen=True)
class Fit:
    """How training went."""

    steps: int  # taken
    best_step: int  # whose weights were kept; 0: those it began with
    best: dict[str, float]  # metrics of that validation
    history: list[dict[str, float]]  # metrics of every validation, with the mean training loss since the one before


def fit_with_patience(
    network: Network[Any],
    objectives: ObjectiveSet,
    train: Stream,
    validation: Stream,
    config: FinetuneConfig,
    *,
    ranks: Ranks,
    validation_inputs: int,
    best_metric: str,
    training_mode: Callable[[nn.Module], object] = nn.Module.train,
) -> Fit:
    """Train the weights of a network that have gradients, and leave it with those of the best validation.

    The weights at the beginning are validated too: training that only does harm ends where it began. Nothing is
    written.

    Parameters
    ----------
    network
        What is trained.
    objectives
        What for.
    train, validation
        The batches.
    config
        Steps, patience and optimizer.
    ranks
        The one process.
    validation_inputs
        Inputs of the validation that are looked at, the same each time.
    best_metric
        What the best weights are best in (`FinetuneConfig.metric`); ``"last"`` keeps those of the last step.
    training_mode
        Puts the training module into the mode that it is trained in.

    Raises
    ------
    TrainingDivergedError
        If a loss or a gradient is not finite. The network is left with the best weights so far.
    """
    run = RunConfig(
        steps=config.steps,
        log_every=config.validate_every,
        validate_every=config.validate_every,
        validation_inputs=validation_inputs,
        checkpoint_every=config.steps,
        best_metric=best_metric,
        patience=config.patience,
    )
    kept, log = MemoryCheckpoints(), MemoryLog()
    trainer = Trainer(
        network,
        objectives=objectives,
        optimizer=config.optimizer(),
        run=run,
        train=train,
        validation=validation,
        ranks=ranks,
        checkpoints=kept,
        log_path=log,
        identity={},
        validate_first=True,
        training_mode=training_mode,
        title="finetune",
    )
    try:
        trainer.fit(StopRequest())
    finally:
        trainer.statistics.end()
        if kept.best_state is not None:
            network.load_state_dict(kept.best_state["network"])
    assert trainer.best is not None, "the beginning is validated"
    best = {name: value for name, value in trainer.best.items() if name != "step"}
    return Fit(steps=trainer.step, best_step=int(trainer.best["step"]), best=best, history=log.rows)

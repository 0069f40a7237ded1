"""Training that stops when validation no longer improves, and keeps the weights that were best."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from torch import Tensor, nn

from spaf_train.finetuning.adapters import restore_state, trained_state
from spaf_train.finetuning.config import FinetuneConfig
from spaf_train.trainer.divergence import TrainingDivergedError
from spaf_train.trainer.optim import learning_rate, make_optimizer
from spaf_train.trainer.progress import TrainingProgress


@dataclasses.dataclass(frozen=True)
class Fit:
    """How training went."""

    steps: int  # taken
    best_step: int  # whose weights were kept; 0: those it began with
    best: dict[str, float]  # metrics of that validation
    history: list[dict[str, float]]  # metrics of every validation, with the mean training loss since the one before


def fit_early_stopping(
    module: nn.Module,
    next_loss: Callable[[], Tensor],
    validate: Callable[[], dict[str, float]],
    config: FinetuneConfig,
) -> Fit:
    """Train the weights of a module that have gradients, and leave it with those of the best validation.

    The weights at the beginning are validated too: training that only does harm ends where it began.

    Parameters
    ----------
    module
        What is trained.
    next_loss
        Puts the module into training mode and returns the loss of the next batch.
    validate
        Puts it into evaluation mode and returns metrics, among them the one of `config.best_metric`.
    config
        Steps, patience and optimizer.

    Raises
    ------
    TrainingDivergedError
        If a loss or a gradient is not finite. The module is left with the best weights so far.
    """
    schedule = config.optimizer()
    optimizer = make_optimizer(module, schedule)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    metrics = {name: float(value) for name, value in validate().items()}
    best, best_step, best_state = metrics, 0, trained_state(module)
    history = [{"step": 0.0, **metrics}]
    step = validations_since = 0
    interval = 0.0
    try:
        with TrainingProgress(config.steps, title="finetune") as progress:
            while step < config.steps and validations_since < config.patience:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, config.steps, schedule)
                optimizer.zero_grad(set_to_none=True)
                loss = next_loss()
                loss.backward()  # type: ignore[no-untyped-call]
                value = float(loss.detach())
                norm = float(nn.utils.clip_grad_norm_(trained, config.clip_norm or math.inf))
                if not (math.isfinite(value) and math.isfinite(norm)):
                    raise TrainingDivergedError(
                        f"Step {step + 1}: the loss or its gradient is not finite; a lower learning_rate or a longer "
                        "warmup_steps may help."
                    )
                optimizer.step()
                step += 1
                interval += value
                progress.update(step, f"loss {value:.3f}  best {best[config.best_metric]:.3f} at {best_step}")
                if step % config.validate_every and step < config.steps:
                    continue
                metrics = {name: float(value) for name, value in validate().items()}
                since = step - int(history[-1]["step"])
                history.append({"step": float(step), "training_loss": interval / since, **metrics})
                interval = 0.0
                validations_since += 1
                if _is_better(metrics, best, config.best_metric):
                    best, best_step, best_state, validations_since = metrics, step, trained_state(module), 0
    finally:
        restore_state(module, best_state)
    return Fit(steps=step, best_step=best_step, best=best, history=history)


def _is_better(metrics: dict[str, float], best: dict[str, float], name: str) -> bool:
    if not math.isfinite(metrics["loss"]):  # of weights that are no more; a share of right answers is a number even so
        return False
    if math.isnan(best[name]):
        return not math.isnan(metrics[name])
    return metrics[name] < best[name] if name == "loss" else metrics[name] > best[name]

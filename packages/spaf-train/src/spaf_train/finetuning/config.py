"""How a model is fine-tuned."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from spaf_train._checks import require, require_at_least
from spaf_train._options import check_types
from spaf_train.trainer.distributed import Device
from spaf_train.trainer.optim import OptimizerConfig

Method = Literal["full", "probe", "lora"]

BestMetric = Literal["loss", "macro_f1", "auroc_pairs"]

Task = Literal["labels", "pairs"]
Features = Literal["auto", "both", "counts", "embedding"]

# Less than these leaves a small set of cells where it began.
_LEARNING_RATES = {"full": 1e-3, "lora": 3e-3}
_METRICS = {"labels": "macro_f1", "pairs": "auroc_pairs"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What is trained, for how long, and when it stops.

    ``probe`` fits a head on what the model gives as it is. ``full`` trains all weights, ``lora`` low-rank adapters of
    the linear maps of attention and MLPs (Hu et al. 2021, "LoRA: low-rank adaptation of large language models"), and
    the head; either is kept only if it beats the probe on training cells that were held out for that.
    """

    method: Method = "probe"  # see above
    rank: int = 64  # lora: rank of the adapters
    alpha: float = 128.0  # lora: the adapters count alpha / rank
    dropout: float = 0.05  # lora: dropout before the adapters
    regularisation: float | None = None  # L2 penalty (1 / C); None: labels: chosen on folds; pairs: 1, read apart 10
    features: Features = "auto"  # labels: what the head reads; auto: counts, with the embedding where that is better
    pooling: str | None = None  # labels: which embedding is read, one of `Model.methods`; None: the first
    balance_classes: bool | None = None  # labels: rare classes count as much as others; None: where that is better
    learning_rate: float | None = None  # None: 1e-3 for full, 3e-3 for lora
    warmup_steps: int = 20  # steps over which the learning rate rises; it falls as a cosine to a hundredth
    weight_decay: float = 0.01  # of weight matrices
    clip_norm: float = 1.0  # largest norm of the whole gradient; 0: no clipping
    steps: int = 1000  # most optimizer steps
    validate_every: int = 50  # steps between two validations
    patience: int = 5  # validations without a better one after which training stops
    best_metric: BestMetric | None = None  # what the best weights are best in; None: macro_f1 or auroc_pairs
    validation_inputs: int = 2048  # pairs: inputs of the validation split looked at, the same each time
    probe_inputs: int = 10_000  # pairs: inputs of the training split that the probe is fitted on
    token_budget: int = 4096  # most tokens of a batch, padding included
    threads: int = 0  # of torch on the CPU; 0: as torch chooses
    device: Device = "auto"  # auto: a GPU where there is one
    seed: int = 0  # of adapters, order of the data and dropout

    def __post_init__(self) -> None:
        check_types(self)
        for name in (
            "rank",
            "steps",
            "validate_every",
            "patience",
            "validation_inputs",
            "probe_inputs",
            "token_budget",
        ):
            require_at_least(name, getattr(self, name), 1)
        require(self.alpha > 0.0, f"alpha must be above 0, not {self.alpha}.")
        require(0.0 <= self.dropout < 1.0, f"dropout must be at least 0 and below 1, not {self.dropout}.")
        require(
            self.regularisation is None or self.regularisation > 0.0,
            f"regularisation must be above 0, not {self.regularisation}.",
        )
        require(
            self.features in get_args(Features),
            f"features must be one of {', '.join(get_args(Features))}, not {self.features!r}.",
        )
        require(
            self.learning_rate is None or self.learning_rate > 0.0,
            f"learning_rate must be above 0, not {self.learning_rate}.",
        )
        require_at_least("threads", self.threads, 0)
        require_at_least("seed", self.seed, 0)
        if self.method != "probe":
            self.optimizer()

    def check_task(self, task: Task) -> None:
        """Raise InputError if the validation of a task does not give the metric that is to be the best."""
        require(
            self.best_metric in (None, "loss", _METRICS[task]),
            f"best_metric of {task} must be loss or {_METRICS[task]}, not {self.best_metric}.",
        )

    def metric(self, task: Task) -> str:
        """Return what the best weights of a task are best in."""
        return self.best_metric or _METRICS[task]

    def optimizer(self) -> OptimizerConfig:
        """Return the optimizer and its schedule; a probe has none."""
        rate = self.learning_rate or _LEARNING_RATES[self.method]
        return OptimizerConfig(
            learning_rate=rate,
            floor=rate / 100.0,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )

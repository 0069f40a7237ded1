"""How a model is fine-tuned."""

from __future__ import annotations

import dataclasses
from typing import Literal

from spaf_train._checks import require, require_at_least
from spaf_train._options import check_types
from spaf_train.trainer.distributed import Device
from spaf_train.trainer.optim import OptimizerConfig

Method = Literal["full", "probe", "lora"]

BestMetric = Literal["loss", "macro_f1", "auroc_pairs"]

# Adapters begin at nothing and have to grow; pre-trained weights only have to shift.
_LEARNING_RATES = {"full": 1e-4, "lora": 1e-3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What is trained, for how long, and when it stops.

    ``full`` trains all weights, ``lora`` low-rank adapters of the linear maps of attention and MLPs (Hu et al. 2021,
    "LoRA: low-rank adaptation of large language models") and the head, ``probe`` the head alone.
    """

    method: Method = "lora"  # see above
    rank: int = 64  # lora: rank of the adapters
    alpha: float = 128.0  # lora: the adapters count alpha / rank
    dropout: float = 0.05  # lora: dropout before the adapters
    regularisation: float = 1.0  # probe: weight of the L2 penalty of the logistic regression (1 / C)
    pooling: str = "cls"  # labels: which embedding of a cell the head reads, such as cls or gene (`Model.methods`)
    balance_classes: bool = True  # labels: rare classes count as much as frequent ones
    learning_rate: float | None = None  # None: 1e-4 for full, 1e-3 for lora
    warmup_steps: int = 20  # steps over which the learning rate rises; it falls as a cosine to a hundredth
    weight_decay: float = 0.01  # of weight matrices
    clip_norm: float = 1.0  # largest norm of the whole gradient; 0: no clipping
    steps: int = 1000  # most optimizer steps
    validate_every: int = 50  # steps between two validations
    patience: int = 5  # validations without a better one after which training stops
    best_metric: BestMetric = "loss"  # what is best: the least loss, or the most macro_f1 (labels) or auroc_pairs
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
        require(self.regularisation > 0.0, f"regularisation must be above 0, not {self.regularisation}.")
        require(
            self.learning_rate is None or self.learning_rate > 0.0,
            f"learning_rate must be above 0, not {self.learning_rate}.",
        )
        require_at_least("threads", self.threads, 0)
        require_at_least("seed", self.seed, 0)
        if self.method != "probe":
            self.optimizer()

    def check_task(self, task: Literal["labels", "pairs"]) -> None:
        """Raise InputError if the validation of a task does not give the metric that is to be the best."""
        gives = {"labels": "macro_f1", "pairs": "auroc_pairs"}[task]
        require(
            self.best_metric in ("loss", gives),
            f"best_metric of {task} must be loss or {gives}, not {self.best_metric}.",
        )

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

"""What an objective is: what it asks of a batch, the loss of the answers, and the scores of a validation."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from spaf_model import InputError
from spaf_train._checks import require_at_least
from spaf_train._options import check_types

if TYPE_CHECKING:
    from spaf_data import Corpus
    from spaf_model import Network, TrainableBatch
    from spaf_train.stream.loader import BatchStream
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw
    from spaf_train.trainer.signals import StopRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What the table of every objective has."""

    enabled: bool = False  # False: nothing of it is drawn or computed
    weight: float = 1.0  # factor of this loss in the total

    def __post_init__(self) -> None:
        check_types(self)
        require_at_least("weight", self.weight, 0.0)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of ``metrics.csv``.

    Attributes
    ----------
    name
        ``loss_`` and the name of the objective for its loss, which the least is best in; of other columns the most.
    title
        In a table, such as that of the card of a model.
    panel
        Title of its chart; of AUROCs, which share one, the name of its line.
    unit
        What the axis of its chart says.
    validated
        Whether validation gives it; else training alone does.
    """

    name: str
    title: str
    panel: str
    unit: str
    validated: bool = True


class Targets(Protocol):
    """What an objective asks of one batch."""

    @property
    def weight(self) -> float:
        """What the summed loss of the batch is divided by; 0 where nothing is asked."""

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a batch.

    Attributes
    ----------
    sum
        Summed over what is asked; the loss of a step is the sum of these over that of the weights.
    weight
        That of the targets.
    answer
        What the network answered, for the scores of a validation.
    counted
        Sums for the columns `Objective.counted`, each divided by the weights as the loss is.
    """

    sum: Tensor
    weight: float
    answer: Tensor
    counted: tuple[Tensor, ...] = ()


class Scores(ABC):
    """What one process adds up of the answers to an objective over the batches of a validation."""

    @abstractmethod
    def add(self, loss: Loss, targets: Any) -> None:
        """Add the answers to a batch."""

    @abstractmethod
    def parts(self) -> Any:
        """Return plain values and arrays, from which `Objective.judge` makes the scores over all processes."""


class Verdict(Protocol):
    """How an objective stands beside what needs no learning."""

    @property
    def learnt(self) -> bool:
        """Whether anything was learnt."""

    def sentence(self) -> str:
        """Say that nothing was learnt, or that it cannot be told."""

    # One that has a method `figures` as well, of plain values such as "loss", "chance", "auroc", "baseline_auroc" and
    # "baseline" (its name), has them in `run.json`, the card and the report.


@dataclasses.dataclass(frozen=True)
class Total:
    """The loss of an objective over a validation: its mean, the standard error over batches, and the weight behind."""

    loss: float
    error: float
    weight: float


class Objective(ABC):
    """Something that a network is trained for.

    A class with a `name` is one of `OBJECTIVES` as soon as it is defined, and with that has a table in the
    configuration (``[objectives.NAME]``), columns in ``metrics.csv`` and on the card, and a place in training and
    validation: the rest of the package asks the methods below and names no objective. Modules of this folder are found
    by themselves. One that only a task of its own asks, such as labels, is defined with ``registered=False``.

    An instance is told its configuration and, where `prepare` gives something, that; it draws nothing but from what a
    batch gives it, so that targets are a function of the place of the batch.

    Parameters
    ----------
    config
        Its table.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # in sentences
    columns: ClassVar[tuple[Column, ...]]  # the loss first
    Config: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig
    counted: ClassVar[tuple[str, ...]] = ()  # columns that training gives too, of `Loss.counted`
    hides: ClassVar[bool] = False  # whether it is asked of an input of which it has hidden something
    left_out_because: ClassVar[str] = ""  # reason for the user where `unanswerable` of the training split
    asks: ClassVar[tuple[str, ...]] = ()  # what a network must have to be asked, by attribute: heads and their methods
    trains: ClassVar[tuple[str, ...]] = ()  # parts of the network that no other objective trains, by attribute

    def __init_subclass__(cls, *, registered: bool = True, **options: Any) -> None:
        super().__init_subclass__(**options)
        if registered and "name" in vars(cls):
            OBJECTIVES[cls.name] = cls

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, model: Any, sampling: SamplingConfig) -> None:  # noqa: B027  # a hook
        """Raise InputError if a model of this configuration, on inputs of this kind, cannot be asked.

        The configuration is that of any family; what a network must have stands in `asks`.
        """

    def check_network(self, network: Network[Any], family: str) -> None:
        """Raise InputError if the network of a family has not what this asks."""
        missing = [name for name in self.asks if getattr(network, name, None) is None]
        if missing:
            raise InputError(
                f"objectives.{self.name} cannot be asked of the family {family!r}: its network has no {missing[0]}; "
                f"switch it off (objectives.{self.name}.enabled=false) or choose another family (model.family)."
            )

    def unanswerable(self, corpus: Corpus, split: str, skip_shards: Collection[str]) -> str | None:
        """Return why a split of a corpus cannot be asked, or None; asked of the training split it is left out."""
        return None

    def require_data(self, train: BatchStream) -> None:  # noqa: B027  # a hook
        """Raise InputError if the training cells cannot be asked, where only a look at them tells."""

    def prepare(self, train: BatchStream, validation: BatchStream | None, stop: StopRequest) -> dict[str, Any]:
        """Return what the targets of both splits need beside the corpus, made once before the first step.

        Tensors and plain values: they are stored with each checkpoint. Called by the main process alone; where it is
        asked to stop meanwhile, what it returns is not used.
        """
        return {}

    def take(self, prepared: Mapping[str, Any], split: str) -> None:  # noqa: B027  # a hook
        """Take over what `prepare` gave, for the targets of a split."""

    def begin(self, network: Any, prepared: Mapping[str, Any]) -> None:  # noqa: B027  # a hook
        """Change the weights that a new run begins with, if this objective has better ones."""

    @abstractmethod
    def targets(self, draw: Draw) -> Targets:
        """Return what is asked of a batch, on the CPU."""

    def hide(self, tokens: Any, targets: Any) -> TrainableBatch:
        """Return the batch that the network reads, with that hidden which is asked for."""
        batch: TrainableBatch = tokens
        return batch

    @abstractmethod
    def loss(self, network: Any, hidden: Tensor, targets: Any, batch: Any) -> Loss:
        """Return the loss of a batch.

        Parameters
        ----------
        network
            Of which heads are asked.
        hidden
            What its `encode` gave for the batch.
        targets
            Of this objective.
        batch
            What was read, such as `Network.pool` needs it.
        """

    def factor(self, progress: float) -> float:
        """Return the factor of the loss at a point of the run, from 0 (start) to 1 (end)."""
        return float(self.config.weight)

    def operations(self, network: Any, targets: Any) -> float:
        """Return the floating-point operations of its head on a batch, forward and backward; small heads count 0."""
        return 0.0

    @abstractmethod
    def new_scores(self) -> Scores:
        """Return what adds up the answers of a validation."""

    @abstractmethod
    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Verdict]:
        """Return the columns of a validation beside the loss, and whether anything was learnt.

        Parameters
        ----------
        total
            The loss.
        parts
            `Scores.parts` of each process.
        """

    @classmethod
    def unlearnt(cls, model: Any) -> Any:
        """Return the configuration of a model that has learnt nothing of this; by default as it is."""
        return model

    def never_asked(self) -> str | None:
        """Return a sentence for a run of which no step asked it; None: nothing is said."""
        return None

    def card_notes(self, sampling: SamplingConfig) -> list[str]:
        """Return what the card of a model says of how it was trained for this."""
        return []


OBJECTIVES: dict[str, type[Objective]] = {}

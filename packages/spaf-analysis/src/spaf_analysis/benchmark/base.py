"""What a task and a method of the benchmark are: one class each, which is found because it was defined."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from spaf_analysis.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spaf_analysis.benchmark.data import Data

# What a score is of: what was asked for, what it has to beat, or what means nothing and shows what a metric is worth.
Role = Literal["method", "baseline", "control"]
METHOD: Final = "method"
BASELINE: Final = "baseline"
CONTROL: Final = "control"

TASKS: dict[str, type[Task]] = {}
METHODS: dict[str, type[Method]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One value of the table.

    Attributes
    ----------
    name
        Of the method or the baseline.
    role
        "method", "baseline" or "control".
    case
        What the value is of where a task asks several things, such as a radius; "" where it asks one.
    measure
        What was measured, such as "AUROC".
    value, low, high
        With its 95 % interval; the bounds are NaN where there is none.
    """

    name: str
    role: Role
    case: str = ""
    measure: str
    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A method less a baseline, on the same resampled tissues, cells or spots.

    Attributes
    ----------
    name, baseline
        Which is less which.
    case, measure
        As for `Score`.
    value, low, high
        With its paired interval.
    verdict
        What the judge says of it where it knows more than the interval, such as "costs identity"; "" where the interval
        is all.
    """

    name: str
    baseline: str
    case: str = ""
    measure: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    verdict: str = ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all tasks are judged with.

    Attributes
    ----------
    seed
        Of everything random.
    replicates
        Draws behind each interval.
    """

    seed: int = 0
    replicates: int = 500


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a task says of one method on one data set.

    Attributes
    ----------
    scores
        Of the method, of every baseline and of every control.
    differences
        Of the method to every baseline.
    units
        What was drawn for the intervals, such as "tiles", and how many there were.
    notes
        What should be known, a sentence each.
    """

    scores: Sequence[Score]
    differences: Sequence[Difference]
    units: tuple[str, int] = ("", 0)
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A question put to methods on data. To add one, derive from this class: its name is then known to the TOML file.

    A class that is a frozen dataclass has its fields as options, in the table ``[tasks.NAME]``. `judge` calls the code
    by which the analysis itself judges, and fits whatever is fitted without the cells that are judged.

    Attributes
    ----------
    name
        In the TOML file.
    title
        In the table.
    needs
        Fields of `DataOptions` that a data set must name to be asked.
    errors
        Measures of which less is better.
    chosen_by
        The measure by which the strongest baseline of another measure is chosen, where it is not that one itself.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    errors: ClassVar[tuple[str, ...]] = ()
    chosen_by: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if getattr(cls, "name", ""):
            TASKS[cls.name] = cls

    @abstractmethod
    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge a method on a data set, beside every baseline.

        Raises
        ------
        InputError
            If the method or the data cannot be judged; the table then holds the sentence.
        """

    def unasked(self, data: Data) -> str:
        """Return why a data set that names what is needed cannot be asked, as a sentence; "" where it can."""
        return ""

    def methods(self, given: Sequence[Method]) -> Sequence[Method]:
        """Return the methods that are judged: those that are given, or the task's own where it takes no embedding."""
        return given


class Method(ABC):
    """Something that embeds cells. To add one, derive from this class: its `option` is then known to the TOML file.

    Parameters
    ----------
    name
        In the table ``[methods.NAME]``.
    value
        What the option says there.

    Attributes
    ----------
    option
        The option by which ``[methods.NAME]`` chooses the class.
    """

    option: ClassVar[str]

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if getattr(cls, "option", ""):
            METHODS[cls.option] = cls

    def check(self, data: Data) -> None:  # noqa: B027  # most have nothing to look at
        """Look before any work whether the method is there and fits the data.

        Raises
        ------
        InputError
            If it does not.
        """

    @abstractmethod
    def embed(self, data: Data, learn_from: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return the embedding of all cells of a data set, (n_cells, D); NaN for cells without one.

        Parameters
        ----------
        data
            A data set.
        learn_from
            The cells that a method which is fitted on the data may see; None: all of them.
        """

    def embed_beside(self, data: Data) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the embeddings of the cells and of the reference of the data set, on the same axes.

        Raises
        ------
        InputError
            If the method knows no axes that two tables share.
        """
        raise InputError(
            f"method {self.name!r} is fitted on the data themselves, and gives a reference of other cells no place on "
            "the same axes."
        )

    def identity(self, data: Data) -> dict[str, Any]:
        """Return what the result depends on: another answer is another cell of the table."""
        return {self.option: self.value}


class Own(Method):
    """A method that a task brings itself and that embeds nothing."""

    option = ""

    def embed(self, data: Data, learn_from: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Raise: nothing is embedded."""
        raise NotImplementedError(f"{self.name} embeds nothing")

"""What every family of models gives, what it may be asked beyond embedding, and the registry of families.

A family is a configuration, a tokeniser, a network and the `Model` that joins them:

    counts of cells --Tokeniser--> TokenisedCells --batch--> Batch --Network.encode, pool--> one state a cell

Nothing is said of what a batch is: sequences of tokens, a matrix of counts, counts that were standardised by slide.
A family whose batches are `TrainableBatch` is trained by `spaf_train.pretrain`, which knows no more of it than stands
here: it makes a vocabulary by `Model.new_vocabulary`, changes counts at random before they are tokenised, and asks the
network for its `blocks`, `operations`, `compiled` parts and `statistics`. Two cells as one input are a matter of
families whose tokenised cells are `ReadsPairs`.

The built-in families are the folders of this package that have a `family.py`, which names its class `FAMILY`; those of
others join by `register_family`, or by an entry point in the group ``spaf_model.families`` of their package, which the
command line finds too.
"""

from __future__ import annotations

import importlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import nn

from spaf_model.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from spaf_model.counts import CellCounts
    from spaf_model.model import Model
    from spaf_model.options import EmbeddingSettings

ENTRY_POINTS = "spaf_model.families"

# Bytes of the widest activation of one batch, fp32. On a CPU larger ones leave the caches and are mapped anew by the
# allocator in every layer; a GPU needs more to be busy.
_WIDEST_ACTIVATION = {"cpu": 8 << 20}
_WIDEST_ACTIVATION_ELSEWHERE = 128 << 20


class FamilyConfig(Protocol):
    """Every number that a network needs: a frozen dataclass, which `config.json` of a model directory holds."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, which JSON can hold."""
        ...

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from plain values; what is not an option is an `InputError` that names it."""
        ...


class Batch(Protocol):
    """What a network reads at once."""

    def to(self, device: torch.device, /) -> Self:
        """Return the batch on a device."""
        ...


class TrainableBatch(Batch, Protocol):
    """A batch that can be trained on: it says how large it is, and may pass the network in parts.

    Thinning can leave a cell without a gene, so a row of which there is nothing to read must be computable too.
    """

    @property
    def n_tokens(self) -> int:
        """Positions of the batch, padding not counted."""
        ...

    def split(self, sizes: Sequence[int], /) -> Sequence[Self]:
        """Return the rows as batches of these sizes, each with no more padding than it needs."""
        ...

    def joined(self, states: Sequence[torch.Tensor], /) -> torch.Tensor:
        """Return the hidden states of the whole batch from those of the batches of `split`."""
        ...


BatchT = TypeVar("BatchT", bound=Batch)
MadeT = TypeVar("MadeT", bound=Batch, covariant=True)  # by what makes batches
ConfigT = TypeVar("ConfigT", bound=FamilyConfig)


class TokenisedCells(Protocol[MadeT]):
    """Cells as a family reads them, of which batches can be made."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Positions that each cell takes in a batch, (n_cells,); 0 for a cell in which there is nothing to read."""
        ...

    def batch(self, cells: NDArray[np.int64], /) -> MadeT:
        """Return the cells at some positions as a batch, in that order."""
        ...


@runtime_checkable
class ReadsPairs(Protocol[MadeT]):
    """Tokenised cells of which two can be one input."""

    def pair_lengths(self, left: NDArray[np.int64], right: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return the positions that each pair takes in a batch, (n_pairs,)."""
        ...

    def pair_batch(self, left: NDArray[np.int64], right: NDArray[np.int64], /) -> MadeT:
        """Return the pairs of the cells at some positions as a batch, in that order."""
        ...


@runtime_checkable
class InContext(Protocol[MadeT]):
    """Tokenised cells that can stand in another context without being tokenised again."""

    def in_context(self, rows: NDArray[np.int64], context: NDArray[np.int64], /) -> TokenisedCells[MadeT]:
        """Return some cells with contexts of their own, (n_rows, 4), in that order."""
        ...


@runtime_checkable
class StepStatistics(Protocol):
    """A module with statistics that move once a step of training, by all that the step saw on all processes.

    Such as the running mean of a batch norm, or how often each expert was chosen.
    """

    counts: bool  # False while a pass is computed again for its gradients: nothing is to be added then

    def gather_statistics(self) -> None:
        """Begin to add up the batches; what was added up before is forgotten."""
        ...

    def gathered_statistics(self) -> torch.Tensor:
        """Return what was added up, float64 (n,); those of all processes are summed."""
        ...

    def move_statistics(self, sums: torch.Tensor, /) -> None:
        """Move the statistics by the sums of a step, and begin to add up anew."""
        ...

    def release_statistics(self) -> None:
        """Add up no longer: outside training statistics move as the module pleases."""
        ...


class Tokeniser(Protocol[MadeT]):
    """From counts to what a family reads; nothing is random, and equal counts give equal batches everywhere."""

    def __call__(self, cells: CellCounts, /) -> TokenisedCells[MadeT]:
        """Prepare cells.

        They are some thousand cells of a table or, for a family that reads whole slides (`Model.reads_whole_slides`),
        all of them, with the slide of each.
        """
        ...


@runtime_checkable
class KnowsSlides(Protocol):
    """A tokeniser to which a cell means something beside the other cells of its slide."""

    def knowing(self, slides: Iterable[CellCounts], /) -> Self:
        """Return the tokeniser for cells of some slides, of which it need not see all cells then.

        Each is given as all of its cells, in the order of the numbers in `CellCounts.slides`; they are read one by one,
        and not at all where nothing is to be known of them.
        """
        ...


class Network(nn.Module, ABC, Generic[BatchT]):
    """The weights of a model, and what they compute. Nothing is computed unless asked for; heads are methods."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Dimensions of the state of a cell."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        first = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def compute_dtype(self, device: torch.device) -> torch.dtype:
        """Return the dtype of matrix products on a device, autocast considered."""
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return next(self.parameters()).dtype

    @abstractmethod
    def encode(self, batch: BatchT) -> torch.Tensor:
        """Return the hidden states of a batch."""

    @abstractmethod
    def pool(self, hidden: torch.Tensor, batch: BatchT, method: str) -> torch.Tensor:
        """Return one state a cell, (B, width), of the hidden states of a batch, by one of `Model.methods`."""

    def embedder(self, method: str, settings: EmbeddingSettings) -> Callable[[BatchT], torch.Tensor]:
        """Return the way from a batch to one state a cell for a run in which the weights do not change.

        It is made and used in evaluation mode, without gradients and under the autocast of the settings.
        """
        if settings.kernel is not None:
            raise InputError(f"kernel {settings.kernel!r} cannot be chosen: {type(self).__name__} has no attention.")
        return lambda batch: self.pool(self.encode(batch), batch, method)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the modules that are worth dividing, recomputing and compiling one by one; none by default."""
        return ()

    def compiled(self) -> Sequence[tuple[nn.Module, str]]:
        """Return modules and names of their methods that are worth compiling for training; none by default.

        Each is a function of tensors alone, without branches on their values: one compilation serves all of them.
        """
        return ()

    def statistics(self) -> Sequence[nn.Module]:
        """Return the modules that stay in evaluation mode where adapters alone are trained.

        By default those with `StepStatistics`, and the batch norms of torch.
        """
        batch_norm = nn.modules.batchnorm._BatchNorm
        return [module for module in self.modules() if isinstance(module, StepStatistics | batch_norm)]

    @property
    def adapted_layers(self) -> Sequence[str]:
        """Names of the linear maps that low-rank adapters go into; none by default."""
        return ()

    def operations(self, batch: BatchT) -> float:
        """Return the floating-point operations of `encode`, padding not counted; 0 where they are not known."""
        return 0.0

    @property
    def activation_width(self) -> int:
        """Most values that one position of a batch takes in any activation."""
        return self.width

    def token_budget(self, device: torch.device) -> int:
        """Return the positions of a batch that suit a device."""
        widest = _WIDEST_ACTIVATION.get(device.type, _WIDEST_ACTIVATION_ELSEWHERE)
        return max(widest // (4 * self.activation_width), 1)


NetworkT = TypeVar("NetworkT", bound=Network[Any])


_registered: dict[str, type[Model[Any, Any]]] = {}


def register_family(model: type[Model[Any, Any]]) -> type[Model[Any, Any]]:
    """Make a family known, so that `load_model` and every command read its model directories.

    Parameters
    ----------
    model
        Its class. Its ``family`` is the name in `config.json`; a name that was registered before now means this class.

    Returns
    -------
    The class, so that this is a decorator too.

    Raises
    ------
    InputError
        If the name is that of a built-in family.
    """
    if model.family in _built_in():
        raise InputError(f"The family {model.family!r} is built in; give yours another name.")
    _registered[model.family] = model
    return model


def families() -> list[str]:
    """Return the names of all families: built-in, registered, and of installed packages."""
    return sorted({*_built_in(), *_registered, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def family_of(name: str) -> type[Model[Any, Any]]:
    """Return the class of a family, which is imported when it is first asked for.

    Raises
    ------
    InputError
        If there is none of that name; the sentence lists those there are.
    """
    if name in _registered:
        return _registered[name]
    if name in _built_in():
        found: type[Model[Any, Any]] = importlib.import_module(f"spaf_model.{name}.family").FAMILY
        return found
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            loaded: type[Model[Any, Any]] = point.load()
            return loaded
    raise InputError(f"There is no family {name!r}; known families: {', '.join(families())}.")


def _built_in() -> list[str]:
    return [file.parent.name for file in Path(__file__).parent.glob("*/family.py")]

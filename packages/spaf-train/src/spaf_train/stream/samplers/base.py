"""What a sampler is: which cells make a batch."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spaf_model import token_budget_batches

if TYPE_CHECKING:
    from spaf_data import Corpus, Distances
    from spaf_train.stream.samplers.config import SamplingConfig
    from spaf_train.stream.window import Inputs, Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The table of a sampler that has no options of its own."""


class Sampler(ABC):
    """Which cells make a batch.

    A class with a `name` is one of `SAMPLERS` as soon as it is defined: ``sampling.input`` chooses it, and its options
    are the table ``[sampling.NAME]``. Modules of this folder are found by themselves.

    An epoch is a list of windows, each some blocks of the split that are in memory together, and each window is cut
    into batches. What those are is a function of the window alone, whose generators are seeded by the run's seed, the
    epoch and the place: so batches depend neither on the number of processes nor on where a run was interrupted.

    Parameters
    ----------
    sampling
        Options.
    corpus
        Distances of the corpus.
    """

    name: ClassVar[str]
    Config: ClassVar[type] = NoOptions
    input_is: ClassVar[str] = "cell"  # for messages
    cells_per_input: ClassVar[int] = 1
    within_budget: ClassVar[bool] = False  # whether every batch passes the network at once
    reads_neighbours: ClassVar[bool] = (
        False  # whether blocks must have every cell around theirs (`spaf_train.stream.halo`)
    )
    whole: ClassVar[bool] = False  # whether the split stays in memory as one window, without its blocks

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            SAMPLERS[cls.name] = cls

    def __init__(self, sampling: SamplingConfig, corpus: Distances) -> None:
        self.sampling = sampling
        self.corpus_distances = corpus
        self.distances = sampling.distances(corpus)

    @property
    def config(self) -> Any:
        """The table of this sampler."""
        return self.sampling.table(self.name)

    def check(self, corpus: Corpus, skip_shards: Collection[str]) -> None:  # noqa: B027  # a hook
        """Raise InputError if training or validation of a corpus cannot be drawn from."""

    def windows(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Cut the blocks of an epoch, in a random order, into windows.

        The number of windows may depend on that of the blocks alone.
        """
        if self.whole:
            return [np.sort(order)]
        size = self.sampling.window_blocks
        return [order[start : start + size] for start in range(0, order.size, size)]

    @abstractmethod
    def batches(self, window: Window) -> list[Inputs]:
        """Return the batches of a window, in their order.

        One that is larger than ``sampling.token_budget`` is still a batch: it passes the network in parts.
        """

    def parts(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Cut inputs beyond the token budget into parts within it, of similar length; none if they are within."""
        if lengths.size * int(lengths.max(initial=0)) <= self.sampling.token_budget:
            return []
        parts = token_budget_batches(lengths, self.sampling.token_budget)
        assert len(parts) == 1 or not self.within_budget, "parts, though the sampler promises none"
        return parts if len(parts) > 1 else []


def block_order(n_blocks: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the blocks in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n_blocks)


def shuffled_batches(inputs: Inputs, window: Window, sampling: SamplingConfig) -> list[Inputs]:
    """Shuffle the inputs of a window and cut them into batches of similar length, within the token budget."""
    generator = window.generator()
    lengths = window.lengths_of(inputs)
    shuffled = generator.permutation(len(inputs))
    batches = []
    for start in range(0, shuffled.size, sampling.grouping):
        group = shuffled[start : start + sampling.grouping]
        batches += [group[rows] for rows in token_budget_batches(lengths[group], sampling.token_budget)]
    return [inputs.take(batches[place]) for place in generator.permutation(len(batches))]


SAMPLERS: dict[str, type[Sampler]] = {}

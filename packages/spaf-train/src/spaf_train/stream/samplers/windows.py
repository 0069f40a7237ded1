"""Windows of tissue: compact pieces of one slide with the neighbours of their cells."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from spaf_train._checks import require, require_at_least
from spaf_train.stream.samplers.base import Sampler
from spaf_train.stream.window import Inputs, Window

if TYPE_CHECKING:
    from spaf_data import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How large a window is, and which cells around it are read."""

    cells: int = 128  # most cells of a window
    tokens: int = (
        0  # most tokens of the cells of a window, about: where cells are long a window has fewer; 0: any number
    )
    neighbours: int = 30  # nearest cells of each that are read too, where the window does not have them; 0: none
    within: float | None = None  # um, largest distance of these; None: any

    def __post_init__(self) -> None:
        require_at_least("cells", self.cells, 1)
        require_at_least("tokens", self.tokens, 0)
        require_at_least("neighbours", self.neighbours, 0)
        require(self.within is None or self.within > 0.0, f"within must be above 0 um, not {self.within}.")


class WindowSampler(Sampler):
    """Every cell once an epoch in a compact window of one slide, with those around it that are its neighbours.

    A block is cut into windows anew in each epoch, across random axes, into halves of halves. The cells that lie around
    a window and are among the nearest `neighbours` of one inside are read beside it, and asked nothing
    (`Inputs.beside`): they come from the block or its halo. A neighbour further than the radius of the corpus counts
    only where one block holds the whole slide, since a halo is no wider; so no cell has another neighbourhood for lying
    at the edge of a block.

    The windows of the blocks in memory follow each other so that those of each slide are spread evenly: with enough
    `window_blocks` and `batches_per_step`, a step has several slides and technologies.
    """

    name = "windows"
    Config = WindowConfig
    reads_neighbours = True

    def batches(self, window: Window) -> list[Inputs]:
        """Return the windows of the blocks, those of each slide evenly spread."""
        generator = window.generator()
        pieces: list[tuple[float, Inputs]] = []
        of_slide: dict[str, list[NDArray[np.int64]]] = {}
        for block, offset, place in zip(window.blocks, window.offsets, window.places, strict=True):
            cut = self._cut(block, int(offset), window.cells.lengths, window.block_generator(place))
            of_slide.setdefault(block.slide, []).extend(cut)
        for slide in sorted(of_slide):
            cut = [of_slide[slide][number] for number in generator.permutation(len(of_slide[slide]))]
            start = generator.random()
            pieces += [
                ((number + start) / len(cut), self._with_neighbours(own, window)) for number, own in enumerate(cut)
            ]
        return [inputs for _, inputs in sorted(pieces, key=lambda piece: piece[0])]

    @property
    def _windows(self) -> WindowConfig:
        return cast("WindowConfig", self.config)

    def _cut(
        self, block: Block, offset: int, lengths: NDArray[np.int64], generator: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Cut the cells that a block owns into compact pieces of about equal numbers."""
        own = np.arange(block.n_owned)
        if not own.size:
            return []
        n_pieces = -(-own.size // self._windows.cells)
        if self._windows.tokens:
            n_pieces = max(n_pieces, -(-int(lengths[own + offset].sum()) // self._windows.tokens))
        angle = generator.uniform(0.0, 2.0 * np.pi)
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        places = block.coordinates[: block.n_owned].astype(np.float64) @ axes
        return [piece + offset for piece in _halved(own, places, min(n_pieces, own.size))]

    def _with_neighbours(self, own: NDArray[np.int64], window: Window) -> Inputs:
        """Return the cells of a window, then those that are read beside them."""
        config = self._windows
        if not config.neighbours:
            return Inputs.of_cells(own, np.zeros(own.size, dtype=bool))
        near, _ = window.cells.nearest(own, config.neighbours, np.inf if config.within is None else config.within)
        around = np.setdiff1d(near[near >= 0], own)
        return Inputs.of_cells(np.concatenate([own, around]), np.arange(own.size + around.size) >= own.size)


def _halved(own: NDArray[np.int64], places: NDArray[np.float64], n_pieces: int) -> list[NDArray[np.int64]]:
    """Cut points across their longer side, and each part again, into pieces whose numbers differ by one at most."""
    if n_pieces == 1:
        return [own]
    first = n_pieces // 2
    at = own.size * first // n_pieces
    axis = int(np.argmax(np.ptp(places[own], axis=0)))
    order = own[np.argsort(places[own, axis], kind="stable")]
    return [*_halved(order[:at], places, first), *_halved(order[at:], places, n_pieces - first)]

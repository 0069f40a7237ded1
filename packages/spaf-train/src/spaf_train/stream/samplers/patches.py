"""Patches of tissue: batches that hold many pairs of cells at all distances."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spaf_train._checks import require, require_at_least
from spaf_train._options import check_types
from spaf_train.stream.samplers.base import Sampler
from spaf_train.stream.window import Cells, Inputs, Window

if TYPE_CHECKING:
    from spaf_data import Distances
    from spaf_train.stream.samplers.config import SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Which cells a batch has together."""

    sites: int = 32  # places of a batch, all of one slide, with two patches each
    cells: int = 8  # cells of a patch: one and those nearest to it
    apart_min: float | None = None  # um, least distance of the middles of the two patches of a site; None: hard_min
    apart_max: float | None = None  # um, largest distance; None: hard_max
    draws: int = 100  # batches of an epoch

    def __post_init__(self) -> None:
        check_types(self)
        require_at_least("sites", self.sites, 2)
        require_at_least("cells", self.cells, 2)
        require_at_least("draws", self.draws, 1)
        if self.apart_min is not None:
            require_at_least("apart_min", self.apart_min, 0.0)
        if self.apart_min is not None and self.apart_max is not None:
            require(
                self.apart_max >= self.apart_min,
                f"apart_max must be at least apart_min ({self.apart_min} um), not {self.apart_max}.",
            )

    def following(self, distances: Distances) -> PatchConfig:
        """Return the same with both distances given: those of hard negatives where there were none.

        Raises
        ------
        InputError
            If the one that is given contradicts the other.
        """
        return dataclasses.replace(
            self,
            apart_min=distances.hard_min if self.apart_min is None else self.apart_min,
            apart_max=distances.hard_max if self.apart_max is None else self.apart_max,
        )


class PatchSampler(Sampler):
    """Two small patches of tissue at each of some sites of a slide.

    Within a patch cells are neighbours, the two patches of a site give hard negatives, and different sites easy ones.
    Many small sites, since cells of one place say much the same. All are of one slide, drawn by its number of cells:
    between slides, cells differ by donor and instrument, and telling those apart is no neighbourhood. A cell in two
    patches comes once. The split is held in memory: about 2 KB a cell.
    """

    name = "patches"
    Config = PatchConfig
    whole = True

    def __init__(self, sampling: SamplingConfig, corpus: Distances) -> None:
        super().__init__(sampling, corpus)
        config = cast("PatchConfig", self.config.following(self.distances))
        assert config.apart_min is not None
        assert config.apart_max is not None
        self._patches = config
        self._apart = config.apart_min, config.apart_max
        self._known: tuple[Cells, list[_Slide]] | None = None

    def batches(self, window: Window) -> list[Inputs]:
        """Return the draws of an epoch; each has a source of randomness of its own."""
        seeds = [[window.seed, window.epoch, window.number, draw, 4] for draw in range(self._patches.draws)]
        return [Inputs.of_cells(self.choose(window.cells, np.random.default_rng(seed))) for seed in seeds]

    def choose(self, cells: Cells, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return the cells of one batch, ascending."""
        slides = self._slides(cells)
        sizes = np.array([len(slide.cells) for slide in slides])
        slide, config = slides[int(generator.choice(len(slides), p=sizes / sizes.sum()))], self._patches
        first = slide.coordinates[generator.integers(0, len(slide.cells), config.sites)]
        distance = generator.uniform(*self._apart, config.sites)
        angle = generator.uniform(0.0, 2.0 * np.pi, config.sites)
        second = first + distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        middles = slide.coordinates[slide.tree.query(np.concatenate([first, second]))[1]]
        nearest = slide.tree.query(middles, k=min(config.cells, len(slide.cells)))[1]
        return slide.cells[np.unique(nearest)]

    def _slides(self, cells: Cells) -> list[_Slide]:
        if self._known is None or self._known[0] is not cells:
            chosen = [np.flatnonzero(cells.slide == slide) for slide in np.unique(cells.slide)]
            self._known = cells, [_Slide.of(cells, own) for own in chosen]
        return self._known[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_known": None}


@dataclasses.dataclass(frozen=True)
class _Slide:
    cells: NDArray[np.int64]
    coordinates: NDArray[np.float32]
    tree: cKDTree

    @classmethod
    def of(cls, cells: Cells, own: NDArray[np.int64]) -> _Slide:
        return cls(own, cells.coordinates[own], cKDTree(cells.coordinates[own]))

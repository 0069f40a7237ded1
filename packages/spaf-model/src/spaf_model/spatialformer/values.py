"""Values of genes beside their ranks: the counts of a cell against those of the cells of its slide.

A rank says that one gene of a cell is above another, and not by how much, nor whether that is usual on this slide. Two
ways to standardise (`SpatialFormerConfig.gene_values`):

``zscore``
    log(1 + count x depth / total of the cell), with depth the median total of the slide, less the mean of the slide's
    cells and over their standard deviation; clipped at 10.
``pearson``
    (count - e) / sqrt(e + e^2 / 100) with e the total of the cell times the share of the gene on the slide (Lause et
    al. 2021, https://doi.org/10.1186/s13059-021-02451-7), clipped at 5, less the mean of the slide's cells.

Means and depth are over cells of at least 10 counts, where there are at least 50 such. A gene without counts on a slide
has the value 0, its mean, in all cells: a panel that lacks a gene and one that never finds it read alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

GeneValueKind = Literal["none", "zscore", "pearson"]
Values = NDArray[np.float32]

_LEAST_COUNTS, _LEAST_CELLS = 10, 50
_LARGEST_Z, _LARGEST_RESIDUAL = 10.0, 5.0
_THETA = 100.0  # inverse overdispersion of the residuals
_LEAST_DEVIATION = 1e-6
_CHUNK_VALUES = 1 << 22  # of a dense chunk: 16 MB


@dataclasses.dataclass(frozen=True, eq=False)
class SlideStatistics:
    """What counts of a slide are standardised with; arrays are (n_tokens,)."""

    kind: GeneValueKind
    depth: float  # median total of a cell
    share: Values  # of each gene in the counts of the slide
    mean: Values
    inverse: Values  # 1 / standard deviation; 0 for a gene that does not vary; 1 for residuals

    @classmethod
    def of(cls, kind: GeneValueKind, counts: sparse.csr_array) -> SlideStatistics:
        """Compute the statistics of all cells of a slide, float32 CSR (n_cells, n_tokens)."""
        n_tokens = counts.shape[1]
        totals = np.asarray(counts @ np.ones(n_tokens))
        known = np.flatnonzero(totals >= _LEAST_COUNTS)
        known = known if known.size >= _LEAST_CELLS else np.arange(totals.size)
        counts = counts[known]
        of_gene = np.asarray(np.ones(known.size) @ counts)
        positive = totals[known][totals[known] > 0]
        raw = cls(
            kind,
            float(np.median(positive)) if positive.size else 1.0,
            (of_gene / max(float(of_gene.sum()), 1.0)).astype(np.float32),
            np.zeros(n_tokens, dtype=np.float32),
            np.ones(n_tokens, dtype=np.float32),
        )
        total, square = np.zeros(n_tokens), np.zeros(n_tokens)
        for chunk in _dense(counts):
            values = raw._unscaled(chunk, None)
            total += values.sum(axis=0, dtype=np.float64)
            square += np.square(values, dtype=np.float64).sum(axis=0)
        n = max(known.size, 1)
        mean, inverse = total / n, np.ones(n_tokens)
        if kind == "zscore":
            deviation = np.sqrt(np.maximum(square / n - mean**2, 0.0))
            varies = deviation > _LEAST_DEVIATION
            inverse = np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0)
        return dataclasses.replace(raw, mean=mean.astype(np.float32), inverse=inverse.astype(np.float32))

    def known(self, panel: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Return which genes the slide has counts of and a panel shows, (n_tokens,)."""
        has_counts = self.share > 0
        return has_counts if panel is None else has_counts & panel

    def standardise(self, counts: Values, panel: NDArray[np.bool_] | None = None) -> Values:
        """Standardise dense counts (n, n_tokens), which are changed; genes that a panel hides get 0.

        Totals and depth are then those of the genes that the panel shows.
        """
        if panel is not None:
            counts *= panel
        values = self._unscaled(counts, panel)
        values -= self.mean
        values *= self.inverse
        if self.kind == "zscore":
            np.clip(values, -_LARGEST_Z, _LARGEST_Z, out=values)
        if panel is not None:
            values *= panel
        return values

    def _unscaled(self, counts: Values, panel: NDArray[np.bool_] | None) -> Values:
        totals = counts.sum(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        shown = np.float32(1.0 if panel is None else max(float(self.share[panel].sum()), 1e-12))
        if self.kind == "zscore":
            counts *= np.float32(self.depth) * shown / np.maximum(totals, np.float32(1.0))
            return np.log1p(counts, out=counts)
        expected = totals * (self.share / shown)
        counts -= expected
        counts /= np.sqrt(expected + expected * expected / np.float32(_THETA) + np.float32(1e-9))
        return np.clip(counts, -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL, out=counts)


@dataclasses.dataclass(frozen=True, eq=False)
class GeneValues:
    """Cells whose counts become values some rows at a time."""

    counts: sparse.csr_array  # float32 (n_cells, n_tokens)
    slides: NDArray[np.int64]  # (n_cells,), which of `statistics` are those of the slide of a cell
    statistics: Sequence[SlideStatistics | None]  # None where no cell is of that slide
    n_genes: int  # of the vocabulary
    panel: NDArray[np.bool_] | None = None  # (n_tokens,), genes that are shown; None: all

    def rows(self, cells: NDArray[np.integer]) -> Values:
        """Return the values of some cells, (n, n_tokens)."""
        values: Values = self.counts[cells].toarray()
        slides = self.slides[cells]
        for slide in np.unique(slides):
            own = slides == slide
            values[own] = self._of(slide).standardise(values[own], self.panel)
        return values

    def known(self, cells: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return which genes are known of some cells, (n, n_tokens)."""
        slides, place = np.unique(self.slides[cells], return_inverse=True)
        if not slides.size:
            return np.zeros((0, self.counts.shape[1]), dtype=bool)
        return np.stack([self._of(slide).known(self.panel) for slide in slides])[place]

    def profiles(self, cells: NDArray[np.integer], values: Values) -> Values:
        """Return values as a linear map of all genes reads them: scaled up for the genes that are not known."""
        n_known = self.known(cells).sum(axis=1, keepdims=True)
        profiles: Values = values * (self.n_genes / np.maximum(n_known, 1)).astype(np.float32)
        return profiles

    def take(self, cells: NDArray[np.integer]) -> GeneValues:
        """Return some of the cells, standardised as before."""
        return dataclasses.replace(self, counts=self.counts[cells], slides=self.slides[cells])

    def _of(self, slide: int) -> SlideStatistics:
        statistics = self.statistics[slide]
        assert statistics is not None, "every slide of a cell has statistics"
        return statistics


def slide_statistics(
    kind: GeneValueKind, counts: sparse.csr_array, slides: NDArray[np.integer], n_slides: int | None = None
) -> list[SlideStatistics | None]:
    """Return the statistics of each slide by its number, of counts (n_cells, n_tokens) of all of their cells."""
    n_slides = int(slides.max(initial=-1)) + 1 if n_slides is None else n_slides
    found: list[SlideStatistics | None] = [None] * n_slides
    for slide in np.unique(slides):
        found[slide] = SlideStatistics.of(kind, counts[np.flatnonzero(slides == slide)])
    return found


def centred_by_slide(states: Values, slides: NDArray[np.integer]) -> Values:
    """Return states (n_cells, D) less the mean of their slide; rows that are not finite do not count for it."""
    centred = states.copy()
    for slide in np.unique(slides):
        own = np.flatnonzero(slides == slide)
        finite = own[np.isfinite(states[own]).all(axis=1)]
        if finite.size:
            centred[own] -= states[finite].mean(axis=0, dtype=np.float64).astype(np.float32)
    return centred


def _dense(counts: sparse.csr_array) -> Iterator[Values]:
    step = max(_CHUNK_VALUES // max(counts.shape[1], 1), 1)
    for start in range(0, counts.shape[0], step):
        yield counts[start : start + step].toarray()

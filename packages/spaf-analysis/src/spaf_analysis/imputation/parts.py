"""Some genes of all cells: the ways to them, with weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.imputation.blend import Evidence, correlations, describe_genes
from spaf_analysis.imputation.spaces import N_RIDGE, Spaces, moments, slopes
from spaf_analysis.imputation.ways import Way, around, fit_ways

_CELLS_AT_ONCE = 8192
_JUDGED_VALUES = 60_000_000

_LEAST_SPREAD = 1e-9  # of predictions over anchors: a way below says nothing of a gene


class AskModel(Protocol):
    """The way of a model by positions of genes, counted through shared genes and others. It reads none."""

    def __call__(self, genes: NDArray[np.int64], /) -> Way:
        """Return the way to some genes."""
        ...

    @property
    def knows(self) -> NDArray[np.bool_]:
        """Whether the model knows a gene, (n_genes,)."""
        ...


@dataclass(frozen=True)
class Part:
    """Ways to some genes with their weights.

    Attributes
    ----------
    genes
        Positions of the genes, counted through shared genes and others.
    ways
        Each stands twice in the weights: as it is, and averaged over the anchors most like a cell.
    mean, spread
        (2 n_ways, n_genes), of predictions over anchors.
    weights
        (n_genes, 2 n_ways).
    anchors
        Positions of the anchors.
    smoothing
        (n_cells, n_anchors).
    given
        Positions in `genes` of those that are given out.
    """

    genes: NDArray[np.int64]
    ways: list[Way]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    weights: NDArray[np.float64]
    anchors: NDArray[np.int64]
    smoothing: sparse.csr_matrix
    given: NDArray[np.int64]

    def predict(self, rows: NDArray[np.int64], genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return log expression of genes (positions in the part) in cells."""
        weight = self.weights[genes].T
        spread, mean = self.spread[:, genes], self.mean[:, genes]
        factor = np.divide(weight, spread, out=np.zeros_like(weight), where=spread > _LEAST_SPREAD)
        factor *= (weight * spread).sum(axis=0)
        constant = (weight * mean).sum(axis=0) - (factor * mean).sum(axis=0)
        n = len(self.ways)
        columns = [way.table(genes) for way in self.ways]
        averaged = np.zeros((self.anchors.size, genes.size), np.float32)
        for at, (way, taken) in enumerate(zip(self.ways, columns, strict=True)):
            if factor[n + at].any():
                averaged += way.from_columns(self.anchors, genes, taken) * factor[n + at].astype(np.float32)
        found = np.empty((rows.size, genes.size), np.float32)
        for start in range(0, rows.size, _CELLS_AT_ONCE):
            some = rows[start : start + _CELLS_AT_ONCE]
            block = np.asarray(self.smoothing[some] @ averaged) + constant.astype(np.float32)
            for at, (way, taken) in enumerate(zip(self.ways, columns, strict=True)):
                if factor[at].any():
                    block += way.from_columns(some, genes, taken) * factor[at].astype(np.float32)
            found[start : start + _CELLS_AT_ONCE] = block
        return found


def fit_part(
    spaces: Spaces,
    targets: sparse.csr_matrix,
    truth: sparse.csr_matrix | None,
    genes: NDArray[np.int64],
    anchors: NDArray[np.int64],
    ask_model: AskModel | None,
    seed: int,
) -> tuple[Part, Evidence]:
    """Fit the ways to some genes and see how they go in the anchors; nothing is weighed yet.

    Parameters
    ----------
    spaces
        Query and reference on axes of other genes.
    targets
        (n_reference, n_genes), log expression.
    truth
        (n_anchors, n_genes), measured in the query; None for genes that it lacks.
    genes, anchors
        See `Part`.
    ask_model
        The way of a model, if there is one.
    seed
        Of kernels.
    """
    ways = fit_ways(spaces, targets, seed=seed)
    if ask_model is not None:
        ways.append(ask_model(genes))
    smoothing = around(spaces.of("joint")[0], anchors)
    of_anchors = smoothing[anchors]
    step = max(_JUDGED_VALUES // max(2 * len(ways) * anchors.size, 1), 1)
    found = []
    for start in range(0, genes.size, step):
        some = np.arange(start, min(start + step, genes.size))
        base = np.stack([way.predict(anchors, some) for way in ways])
        both = np.concatenate([base, np.stack([np.asarray(of_anchors @ one) for one in base])])
        seen = None if truth is None else truth[:, some].toarray()
        if seen is not None and spaces.depth is not None:
            of_cells = spaces.depth.query[anchors]
            seen = seen - np.outer(of_cells, slopes(of_cells, seen))
        found.append(correlations(both, seen))
    between, with_truth = (np.concatenate([one[at] for one in found]) for at in (0, 1))
    mean, spread = (np.concatenate([one[at] for one in found], axis=1) for at in (2, 3))
    if ask_model is not None:
        ways[-1] = _in_scale_of_reference(ways[-1], spaces, targets, mean, spread)
    components = spaces.of("components")[1][:, : N_RIDGE[0]]
    about = describe_genes(components, targets, between, spread, len(ways))
    nothing = np.zeros((genes.size, 2 * len(ways)))
    return Part(genes, ways, mean, spread, nothing, anchors, smoothing, np.arange(genes.size)), Evidence(
        between, with_truth, about
    )


def weighed(part: Part, method: str, blended: NDArray[np.float64]) -> Part:
    """Return a part that predicts by one way alone, or by the blend."""
    weights = blended
    if method != "blend":
        weights = np.zeros_like(blended)
        weights[:, [way.name for way in part.ways].index(method)] = 1.0
    # A way that says the same of all cells says nothing, and would drag what others say towards its constant.
    speaking = np.where(part.spread.T > _LEAST_SPREAD, weights, 0.0)
    total = speaking.sum(axis=1, keepdims=True)
    return replace(part, weights=np.where(total > 0.0, speaking / np.where(total > 0.0, total, 1.0), weights))


def _in_scale_of_reference(
    way: Way, spaces: Spaces, targets: sparse.csr_matrix, mean: NDArray[np.float64], spread: NDArray[np.float64]
) -> Way:
    """Return the last way with the mean and deviation over anchors that genes have in the reference.

    `mean` and `spread`, which hold what was found of the way as it is, are changed with it: a model expects counts of
    the genes that it read, and logarithms of the reference stand on the depth of all of its own.
    """
    wanted_mean, wanted_spread = moments(targets)
    if spaces.depth is not None:
        follows = slopes(spaces.depth.reference, targets).astype(np.float64) * float(spaces.depth.reference.std())
        wanted_spread = np.sqrt(np.maximum(wanted_spread**2 - follows**2, 0.0))
    last = len(mean) // 2 - 1
    own = spread[last]
    scale = np.where(own > _LEAST_SPREAD, wanted_spread / np.where(own > _LEAST_SPREAD, own, 1.0), 1.0)
    offset = wanted_mean - scale * mean[last]
    for at in (last, -1):
        mean[at] = scale * mean[at] + offset
        spread[at] *= scale
    return replace(
        way, scale=scale.astype(np.float32), offset=offset.astype(np.float32), middle=wanted_mean.astype(np.float32)
    )

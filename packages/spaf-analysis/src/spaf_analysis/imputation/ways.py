"""The ways to a gene that was not measured: each is what a cell reads (a row of a design) times a table of genes.

That they are all products is what makes large tables possible: a block of cells and genes needs some rows of the one
and some columns of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from spaf_analysis.imputation.spaces import N_RIDGE, Spaces, slopes

N_NEIGHBORS = 50
N_AROUND = 30  # cells of the query like a cell, that its prediction is averaged over
WAYS: tuple[str, ...] = ("knn", "spage", "ridge", "ridge-200", "kernel")

_PENALTY = 5.0  # of ridge regression, in cells: times their number it stands beside sums of squares
_KERNEL_PENALTY = 3.0  # in mean variances of a feature
_N_FEATURES = 600
_MOST_PAIRS = 500  # cells whose distances give the width of the kernel


@dataclass(frozen=True)
class Way:
    """One way from cells to genes.

    Attributes
    ----------
    name
        Of the way: of `WAYS`, and a number where there are two of a kind.
    design
        Rows of the design for cells at some positions.
    table
        (width of the design, n_genes), of which columns are taken.
    offset
        (n_genes,), added.
    scale
        (n_genes,), multiplied before; None: 1.
    middle
        (n_genes,), for cells without counts, where what they read does not place them at the mean.
    """

    name: str
    design: Callable[[NDArray[np.int64]], Any]
    table: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    offset: NDArray[np.float32] | None
    scale: NDArray[np.float32] | None = field(default=None, kw_only=True)
    middle: NDArray[np.float32] | None = field(default=None, kw_only=True)

    def predict(self, rows: NDArray[np.int64], genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return log expression of genes in cells."""
        return self.from_columns(rows, genes, self.table(genes))

    def from_columns(
        self, rows: NDArray[np.int64], genes: NDArray[np.int64], columns: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the same, where the columns of the table were taken already."""
        return self.scaled(np.asarray(self.design(rows) @ columns, dtype=np.float32), genes)

    def scaled(self, values: NDArray[np.float32], genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return values of genes times the scale, with the offset."""
        if self.scale is not None:
            values = values * self.scale[genes]
        return values if self.offset is None else values + self.offset[genes]


def fit_ways(spaces: Spaces, targets: sparse.csr_matrix, *, seed: int = 0) -> list[Way]:
    """Fit every way that needs no model.

    Parameters
    ----------
    spaces
        Query and reference on common axes.
    targets
        (n_reference, n_genes), log expression of the genes that are wanted.
    seed
        Of the random features of the kernel.

    Returns
    -------
    list of Way
        In the order of `WAYS`. "knn": mean of 50 cells of the reference by components of both together. "spage": 50 by
        principal vectors, weighted by cosine (Abdelaal et al., Nucleic Acids Research 48, 2020). "ridge", "ridge-200":
        ridge regression on 50 and 200 components of the reference. "kernel": the same on random features of a Gaussian
        kernel (Rahimi and Recht, NIPS 2007).
    """
    columns = targets.tocsc()

    depth = None if spaces.depth is None else spaces.depth.reference
    slope = None if depth is None else slopes(depth, targets)

    def of_reference(genes: NDArray[np.int64]) -> NDArray[np.float32]:
        found = np.asarray(columns[:, genes].toarray(), dtype=np.float32)
        if depth is not None and slope is not None:
            found -= np.outer(depth, slope[genes])
        return found

    ways = [
        Way("knn", _taken(_neighbours(*spaces.of("joint"), metric="euclidean")), of_reference, None),
        Way("spage", _taken(_neighbours(*spaces.of("vectors"), metric="cosine")), of_reference, None),
    ]
    mean = np.asarray(targets.mean(axis=0), dtype=np.float64).ravel()
    query, reference = spaces.of("components")
    for number, n in enumerate(N_RIDGE):
        read, known = query[:, :n], reference[:, :n]
        coefficients = _solved(known, targets, mean, _PENALTY * len(known))
        ways.append(_linear("ridge" if number == 0 else f"ridge-{n}", _taken(read), coefficients, mean))
    query, reference = spaces.of("joint")
    rng = np.random.default_rng([seed, 3])
    some = reference[rng.permutation(len(reference))[:_MOST_PAIRS]]
    distance = np.sqrt(np.maximum(((some[:, None] - some[None]) ** 2).sum(axis=-1), 0.0))
    width = float(np.median(distance[distance > 0])) if (distance > 0).any() else 1.0
    turn = (rng.normal(size=(reference.shape[1], _N_FEATURES)) / width).astype(np.float32)
    phase = rng.uniform(0.0, 2.0 * np.pi, _N_FEATURES).astype(np.float32)
    seen = np.cos(reference @ turn + phase)
    centre = seen.mean(axis=0)
    seen -= centre
    if depth is not None:
        # What the other features are by construction: of no slope on depth, so that targets need none taken from them.
        seen -= np.outer(depth, slopes(depth, seen))
    penalty = _KERNEL_PENALTY * len(seen) * float(seen.var(axis=0).mean())
    coefficients = _solved(seen, targets, mean, penalty)
    ways.append(_linear("kernel", lambda rows: np.cos(query[rows] @ turn + phase) - centre, coefficients, mean))
    return ways


def around(axes: NDArray[np.floating], anchors: NDArray[np.int64]) -> sparse.csr_matrix:
    """Return the mean over the anchors most like each cell, (n_cells, n_anchors)."""
    return _neighbours(axes, axes[anchors], metric="euclidean", n=N_AROUND)


def _taken(matrix: Any) -> Callable[[NDArray[np.int64]], Any]:
    return lambda rows: matrix[rows]


def _linear(
    name: str,
    design: Callable[[NDArray[np.int64]], Any],
    coefficients: NDArray[np.float32],
    mean: NDArray[np.float64],
) -> Way:
    return Way(name, design, lambda genes: coefficients[:, genes], mean.astype(np.float32))


def _solved(
    known: NDArray[np.float32], targets: sparse.csr_matrix, mean: NDArray[np.float64], penalty: float
) -> NDArray[np.float32]:
    """Return the ridge regression of centred targets on centred features."""
    square = known.T.astype(np.float64) @ known
    square[np.diag_indices_from(square)] += penalty
    product = np.asarray((targets.T @ known).T, dtype=np.float64) - np.outer(known.sum(axis=0), mean)
    return np.linalg.solve(square, product).astype(np.float32)


def _neighbours(
    query: NDArray[np.floating], reference: NDArray[np.floating], *, metric: str, n: int = N_NEIGHBORS
) -> sparse.csr_matrix:
    n = min(n, len(reference))
    search = NearestNeighbors(n_neighbors=n, metric=metric, algorithm="brute").fit(reference)
    distance, found = search.kneighbors(query)
    weight = np.full(distance.shape, 1.0 / n)
    if metric == "cosine" and n > 1:
        total = distance.sum(axis=1, keepdims=True)
        weight = (1.0 - np.divide(distance, total, out=np.full_like(distance, 1.0 / n), where=total > 0)) / (n - 1)
    if metric == "cosine" and (unknown := ~query.any(axis=1)).any():
        # Cells without counts have no direction, and the same distance from all: those next to the mean stand for them.
        found[unknown] = np.argsort(np.square(reference).sum(axis=1), kind="stable")[:n]
    ends = np.arange(0, len(query) * n + 1, n)
    return sparse.csr_matrix(
        (weight.ravel().astype(np.float32), found.ravel(), ends), shape=(len(query), len(reference))
    )

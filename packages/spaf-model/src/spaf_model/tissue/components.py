"""Principal components of slides that are standardised in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

if TYPE_CHECKING:
    from spaf_model.tissue.standardise import Rows, Standardised

_EXACT = 2_000  # genes or cells up to which components are exact
_EXTRA, _POWERS = 20, 4  # of the randomised ones


def principal_components(slides: Sequence[Standardised], k: int, *, seed: int = 0) -> tuple[Rows, NDArray[np.float32]]:
    """Return loadings (n_genes, k) and standard deviations (k,) of the cells of all slides.

    Values are taken as centred. Exact where there are at most 2,000 genes or cells, else randomised (20 more
    components, 4 power iterations) from the seed. The largest absolute loading of a component is positive.
    """
    n, n_genes = sum(slide.shape[0] for slide in slides), slides[0].shape[1]
    k = max(min(k, n_genes, n - 1), 1)
    if min(n, n_genes) > _EXACT:
        vectors, variances = _randomised(slides, k, seed)
    elif n_genes <= n:
        variances, vectors = _largest(gram(slides) / n, k)
    else:
        cells = np.concatenate([chunk for slide in slides for _, chunk in slide.chunks()])
        variances, of_cells = _largest((cells @ cells.T).astype(np.float64) / n, k)
        vectors = cells.T @ (of_cells / np.sqrt(np.maximum(variances, 1e-12) * n)).astype(np.float32)
    deviations = np.sqrt(np.maximum(variances, 1e-12)).astype(np.float32)
    return (vectors * signs(vectors)).astype(np.float32), deviations


def signs(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return for each column the sign that makes its largest absolute value positive."""
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.where(largest < 0, -1, 1).astype(vectors.dtype)


def gram(slides: Sequence[Standardised]) -> NDArray[np.float64]:
    """Return the sum of the products of genes over all cells, (n_genes, n_genes)."""
    total = np.zeros((slides[0].shape[1],) * 2)
    for slide in slides:
        for _, chunk in slide.chunks():
            total += chunk.T @ chunk
    return total


def _largest(matrix: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = matrix.shape[0]
    values, vectors = linalg.eigh(matrix, subset_by_index=[size - k, size - 1])
    return values[::-1], vectors[:, ::-1]


def _randomised(slides: Sequence[Standardised], k: int, seed: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return vectors and variances by subspace iteration; each product is one pass over the chunks."""
    n_genes = slides[0].shape[1]

    def forward(loadings: Rows) -> Rows:
        return np.concatenate([slide.project(loadings) for slide in slides])

    def back(cells: Rows) -> Rows:
        result = np.zeros((n_genes, cells.shape[1]), dtype=np.float32)
        start = 0
        for slide in slides:
            for rows, chunk in slide.chunks():
                result += chunk.T @ cells[start + rows.start : start + rows.stop]
            start += slide.shape[0]
        return result

    rng = np.random.default_rng(seed)
    cells = forward(rng.standard_normal((n_genes, k + _EXTRA)).astype(np.float32))
    for _ in range(_POWERS):
        cells = forward(back(np.linalg.qr(cells)[0]))
    basis = np.linalg.qr(cells)[0]
    _, singular, vectors = np.linalg.svd(back(basis).T, full_matrices=False)
    return vectors[:k].T, singular[:k].astype(np.float64) ** 2 / len(cells)

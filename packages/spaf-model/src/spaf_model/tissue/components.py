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


def principal_components(
    slides: Sequence[Standardised], k: int, *, seed: int = 0, weights: Sequence[float] | None = None
) -> tuple[Rows, NDArray[np.float32]]:
    """Return loadings (n_genes, k) and standard deviations (k,) of the cells of all slides.

    Values are taken as centred. Exact where there are at most 2,000 genes or cells, else randomised (20 more
    components, 4 power iterations) from the seed. The largest absolute loading of a component is positive.

    Parameters
    ----------
    slides
        On one axis of genes.
    k
        Components wanted.
    seed
        Of the randomised ones.
    weights
        Of a cell of each slide; None: all weigh 1.
    """
    weights = [1.0] * len(slides) if weights is None else weights
    n, n_genes = sum(slide.shape[0] for slide in slides), slides[0].shape[1]
    total = sum(weight * slide.shape[0] for slide, weight in zip(slides, weights, strict=True))
    k = max(min(k, n_genes, n - 1), 1)
    if min(n, n_genes) > _EXACT:
        vectors, variances = _randomised(slides, k, seed, weights)
    elif n_genes <= n:
        variances, vectors = _largest(gram(slides, weights) / total, k)
    else:
        cells = np.concatenate([_all_columns(slide, weight) for slide, weight in zip(slides, weights, strict=True)])
        variances, of_cells = _largest((cells @ cells.T).astype(np.float64) / total, k)
        vectors = cells.T @ (of_cells / np.sqrt(np.maximum(variances, 1e-12) * total)).astype(np.float32)
    deviations = np.sqrt(np.maximum(variances, 1e-12)).astype(np.float32)
    return (vectors * signs(vectors)).astype(np.float32), deviations


def _all_columns(slide: Standardised, weight: float) -> Rows:
    """Return all cells, (n_cells, n_genes), times the root of their weight."""
    chunks = np.concatenate([chunk for _, chunk in slide.chunks()]) * np.float32(np.sqrt(weight))
    if slide.columns is None:
        return chunks
    result = np.zeros(slide.shape, dtype=np.float32)
    result[:, slide.columns] = chunks
    return result


def signs(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return for each column the sign that makes its largest absolute value positive."""
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.where(largest < 0, -1, 1).astype(vectors.dtype)


def gram(slides: Sequence[Standardised], weights: Sequence[float]) -> NDArray[np.float64]:
    """Return the weighted sum of the products of genes over all cells, (n_genes, n_genes)."""
    total = np.zeros((slides[0].shape[1],) * 2)
    for slide, weight in zip(slides, weights, strict=True):
        where = slice(None) if slide.columns is None else np.ix_(slide.columns, slide.columns)
        for _, chunk in slide.chunks():
            total[where] += weight * (chunk.T @ chunk)
    return total


def _largest(matrix: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = matrix.shape[0]
    values, vectors = linalg.eigh(matrix, subset_by_index=[size - k, size - 1])
    return values[::-1], vectors[:, ::-1]


def _randomised(
    slides: Sequence[Standardised], k: int, seed: int, weights: Sequence[float]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return vectors and variances by subspace iteration; each product is one pass over the chunks."""
    n_genes = slides[0].shape[1]
    roots = [np.float32(np.sqrt(weight)) for weight in weights]

    def forward(loadings: Rows) -> Rows:
        return np.concatenate([root * slide.project(loadings) for slide, root in zip(slides, roots, strict=True)])

    def back(cells: Rows) -> Rows:
        result = np.zeros((n_genes, cells.shape[1]), dtype=np.float32)
        start = 0
        for slide, root in zip(slides, roots, strict=True):
            where = slice(None) if slide.columns is None else slide.columns
            for rows, chunk in slide.chunks():
                result[where] += root * (chunk.T @ cells[start + rows.start : start + rows.stop])
            start += slide.shape[0]
        return result

    rng = np.random.default_rng(seed)
    cells = forward(rng.standard_normal((n_genes, k + _EXTRA)).astype(np.float32))
    for _ in range(_POWERS):
        cells = forward(back(np.linalg.qr(cells)[0]))
    basis = np.linalg.qr(cells)[0]
    _, singular, vectors = np.linalg.svd(back(basis).T, full_matrices=False)
    total = sum(weight * slide.shape[0] for slide, weight in zip(slides, weights, strict=True))
    return vectors[:k].T, singular[:k].astype(np.float64) ** 2 / total

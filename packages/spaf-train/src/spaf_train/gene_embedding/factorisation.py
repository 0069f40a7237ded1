"""From counts of proximal transcripts to vectors of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from spaf_train.gene_embedding.options import Null, check_null, check_pseudo_count

if TYPE_CHECKING:
    from spaf_data import GeneProximity


def association(
    proximity: GeneProximity, *, null: Null = "abundance", pseudo_count: float = 5.0
) -> NDArray[np.float64]:
    """Return how much more often than by chance two genes lie together, ``log((n + k) / (e + k))``, genes x genes.

    Parameters
    ----------
    proximity
        Proximal pairs of transcripts.
    null
        What chance is. ``"cells"``: genes are dealt anew among the transcripts of each cell, so that only places
        inside cells count. ``"abundance"``: among all transcripts that have proximal ones, so that genes of the same
        types of cells are associated too (pointwise mutual information).
    pseudo_count
        The k that is added to both counts; pairs that are expected less often come out near 0.

    Raises
    ------
    InputError
        If there is no such null, or `pseudo_count` is not above 0.
    """
    check_null(null)
    check_pseudo_count(pseudo_count)
    observed = proximity.observed.astype(np.float64)
    expected = proximity.expected
    if null == "abundance":
        # Ordered pairs: one of two transcripts of the same gene is two of them.
        ends = observed.sum(axis=0) + np.diag(observed)
        expected = np.outer(ends, ends) / max(ends.sum(), 1.0)
        np.fill_diagonal(expected, np.diag(expected) / 2)
    ratio: NDArray[np.float64] = np.log((observed + pseudo_count) / (expected + pseudo_count))
    return ratio


def factorise(matrix: NDArray[np.float64], dimensions: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return vectors whose products are closest to a symmetric matrix, and the weight of each dimension.

    The matrix is about ``(vectors * sign(weights)) @ vectors.T``: its eigenvectors of the largest eigenvalues by
    magnitude (the weights, in descending magnitude), each as long as the root of that. The largest entry of each is
    positive.

    Parameters
    ----------
    matrix
        Symmetric, n x n.
    dimensions
        Number of eigenvectors, below n.
    """
    n = len(matrix)
    assert 0 < dimensions < n, (dimensions, n)
    start = np.random.default_rng(0).normal(size=n)  # equal input gives equal vectors
    weights, vectors = eigsh(matrix, k=dimensions, which="LM", v0=start)
    order = np.argsort(-np.abs(weights), kind="stable")
    weights, vectors = weights[order], vectors[:, order]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(dimensions)]
    return vectors * np.where(largest < 0.0, -1.0, 1.0) * np.sqrt(np.abs(weights)), weights

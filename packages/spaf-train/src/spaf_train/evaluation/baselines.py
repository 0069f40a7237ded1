"""What a learned embedding has to beat: principal components of expression, alone and under a trained pair model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from spaf_model import check_counts
from spaf_train.evaluation.pairs import MatchedPairs

N_COMPONENTS = 30
N_PEARSON_COMPONENTS = 50
_RESIDUALS_AT_ONCE = 4_000_000  # cells x genes


def log_normalize(counts: Any, *, target: float = 1e4) -> sparse.csr_matrix:
    """Turn counts into log(1 + counts per `target`), cells x genes, sparse; cells without counts stay zero.

    Raises
    ------
    InputError
        If the values are no counts, such as logarithms of counts.
    """
    matrix = sparse.csr_matrix(counts, dtype=np.float64)
    check_counts(matrix.indptr, matrix.data)
    normalized = sparse.csr_matrix(normalize(matrix, norm="l1"))
    normalized.eliminate_zeros()
    normalized.data = np.log1p(normalized.data * target)
    return normalized


@dataclass(frozen=True)
class PcaEmbedding:
    """Principal components of log-normalised counts, with what was fitted on.

    Attributes
    ----------
    coordinates
        Cells x components, of all cells.
    n_fitted
        Number of cells that the components were fitted on.
    """

    coordinates: NDArray[np.float64]
    n_fitted: int


def pca_embedding(counts: Any, fit_cells: NDArray[np.integer], *, n_components: int = N_COMPONENTS) -> PcaEmbedding:
    """Principal components (log1p, counts per 10,000) fitted on some cells and applied to all.

    Parameters
    ----------
    counts
        Cells x genes, sparse or dense.
    fit_cells
        Indices of the cells to fit on, so that the cells a score is judged on take no part in it.
    n_components
        Number of components; fewer when there are not so many genes or cells.

    Returns
    -------
    PcaEmbedding
        Centred on the mean of the fitted cells.
    """
    expression = log_normalize(counts)
    fitted = expression[fit_cells]
    n_components = min(n_components, fitted.shape[0] - 1, fitted.shape[1] - 1)
    # The eigenvectors of the gene covariance: exact, without a random start, and of a size that cells do not change.
    pca = PCA(n_components, svd_solver="covariance_eigh").fit(fitted)
    return PcaEmbedding(np.asarray(expression @ pca.components_.T - pca.mean_ @ pca.components_.T), len(fit_cells))


def pearson_embedding(
    counts: Any,
    slide: NDArray[np.generic],
    fit_cells: NDArray[np.integer],
    *,
    n_components: int = N_PEARSON_COMPONENTS,
    theta: float = 100.0,
    max_genes: int = 2_000,
) -> PcaEmbedding:
    """Principal components of analytic Pearson residuals, each slide against its own gene shares.

    Parameters
    ----------
    counts
        Cells x genes, sparse or dense.
    slide
        The slide of each cell.
    fit_cells
        Indices of the cells to fit on. The shares of a slide's genes are those of its cells among them; only a slide
        without any, of which nothing else is known, is measured by its own cells.
    n_components
        Number of components; fewer when there are not so many genes or cells.
    theta
        Overdispersion of the counts.
    max_genes
        With more genes, those whose residuals vary most in the fitted cells.

    Returns
    -------
    PcaEmbedding
        Centred on the mean of the fitted cells.

    Notes
    -----
    With mu the total of a cell times the share of a gene, the residual is (x - mu) / sqrt(mu + mu^2 / theta), clipped
    at the square root of the number of cells that gave the shares (Lause, Berens and Kobak, Genome Biology 22, 2021).
    Residuals are dense: they are made for some cells at a time, so that memory does not grow with cells x genes.
    """
    matrix = sparse.csr_matrix(counts, dtype=np.float64)
    residuals = _PearsonResiduals(matrix, slide, fit_cells, theta)
    genes = np.arange(matrix.shape[1])
    if len(genes) > max_genes:
        squares = totals = np.zeros(len(genes))
        for rows in _chunks(fit_cells, len(genes)):
            some = residuals.of(rows, genes)
            squares, totals = squares + (some**2).sum(axis=0), totals + some.sum(axis=0)
        variance = squares / len(fit_cells) - (totals / len(fit_cells)) ** 2
        genes = np.sort(np.argsort(-variance, kind="stable")[:max_genes])
    product, total = np.zeros((len(genes), len(genes))), np.zeros(len(genes))
    for rows in _chunks(fit_cells, len(genes)):
        some = residuals.of(rows, genes)
        product, total = product + some.T @ some, total + some.sum(axis=0)
    mean = total / len(fit_cells)
    axes = np.linalg.eigh(product / len(fit_cells) - np.outer(mean, mean))[1][:, ::-1]
    axes = axes[:, : max(1, min(n_components, len(fit_cells) - 1, len(genes) - 1))]
    every = _chunks(np.arange(matrix.shape[0]), len(genes))
    return PcaEmbedding(np.vstack([(residuals.of(rows, genes) - mean) @ axes for rows in every]), len(fit_cells))


class _PearsonResiduals:
    """Residuals of some cells and genes at a time."""

    def __init__(
        self, counts: sparse.csr_matrix, slide: NDArray[np.generic], fit_cells: NDArray[np.integer], theta: float
    ) -> None:
        self._counts, self._theta = counts, theta
        self._total = np.asarray(counts.sum(axis=1)).ravel()
        names, self._slide = np.unique(slide, return_inverse=True)
        self._slide = self._slide.ravel()
        shares, self._clip = np.zeros((len(names), counts.shape[1])), np.ones(len(names))
        for code in range(len(names)):
            cells = fit_cells[self._slide[fit_cells] == code]
            cells = cells if len(cells) else np.flatnonzero(self._slide == code)
            of_genes = np.asarray(counts[cells].sum(axis=0)).ravel()
            shares[code] = of_genes / max(of_genes.sum(), 1.0)
            self._clip[code] = np.sqrt(len(cells))
        self._shares = shares

    def of(self, rows: NDArray[np.integer], genes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return residuals of cells x genes; 0 where a gene was not seen on the slide."""
        mu = self._total[rows, None] * self._shares[self._slide[rows]][:, genes]
        values = np.asarray(self._counts[rows][:, genes].toarray()) - mu
        np.divide(values, np.sqrt(mu + mu**2 / self._theta), out=values, where=mu > 0)
        values[mu <= 0] = 0.0
        clip = self._clip[self._slide[rows], None]
        return np.asarray(np.clip(values, -clip, clip))


def _chunks(rows: NDArray[np.integer], n_genes: int) -> Iterator[NDArray[np.integer]]:
    at_once = max(1, _RESIDUALS_AT_ONCE // max(n_genes, 1))
    for start in range(0, len(rows), at_once):
        yield rows[start : start + at_once]


def cosine(
    embedding: NDArray[np.floating], left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Cosine of the embeddings of the two cells of each pair; 0 where one of them is a zero vector."""
    unit = normalize(np.asarray(embedding, dtype=np.float64))
    return np.asarray(np.einsum("ij,ij->i", unit[left], unit[right]))


class LogisticPairs:
    """Logistic regression on `|a - b|` and `a * b` of the two cells' embeddings: symmetric in the two cells.

    Parameters
    ----------
    embedding
        Cells x components.
    pairs
        Pairs to fit on: neighbours within `radius` against as many hard and as many easy negatives, the classes
        weighted equally.
    radius
        Largest distance of the positive pairs in um.
    cells
        The row of `embedding` of each cell that `pairs` names; the same number if None.
    """

    def __init__(
        self,
        embedding: NDArray[np.floating],
        pairs: MatchedPairs,
        radius: float,
        *,
        cells: NDArray[np.integer] | None = None,
    ) -> None:
        if cells is None:
            cells = np.arange(len(embedding))
        left, right, labels = pairs.labelled(radius)
        self._embedding = embedding
        self._model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000, class_weight="balanced"))
        self._model.fit(self._features(cells[left], cells[right]), labels)

    def score(self, left: NDArray[np.integer], right: NDArray[np.integer]) -> NDArray[np.float64]:
        """Log odds that the two cells of each pair are neighbours."""
        return np.asarray(self._model.decision_function(self._features(left, right)), dtype=np.float64)

    def _features(self, left: NDArray[np.integer], right: NDArray[np.integer]) -> NDArray[np.float64]:
        a, b = self._embedding[left], self._embedding[right]
        return np.hstack([np.abs(a - b), a * b])

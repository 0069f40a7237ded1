"""What a learned embedding has to beat: principal components of expression, alone and under a trained pair model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from spaf_train.evaluation.pairs import MatchedPairs

N_COMPONENTS = 30


def log_normalize(counts: Any, *, target: float = 1e4) -> sparse.csr_matrix:
    """Turn counts into log(1 + counts per `target`), cells x genes, sparse; cells without counts stay zero."""
    normalized = sparse.csr_matrix(normalize(sparse.csr_matrix(counts, dtype=np.float64), norm="l1"))
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


def cosine(
    embedding: NDArray[np.floating], left: NDArray[np.integer], right: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Cosine of the embeddings of the two cells of each pair; 0 where one of them is a zero vector."""
    unit = normalize(np.asarray(embedding, dtype=np.float64))
    return np.einsum("ij,ij->i", unit[left], unit[right])


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

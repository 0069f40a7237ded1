"""Which genes have a pattern in space."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.errors import InputError
from spaf_analysis.metrics import log_normalize


def rank_by_pattern(graph: Any, counts: Any, genes: Sequence[str], *, min_cell_share: float = 0.05) -> pd.Series:
    """Moran's I of the log-normalised counts of each gene, highest first.

    Parameters
    ----------
    graph
        Cells x cells, sparse: the weights of neighbours, zero on the diagonal.
    counts
        Cells x genes.
    genes
        Of the columns.
    min_cell_share
        Genes found in a smaller share of the cells are left out: a handful of cells gives no pattern.

    Returns
    -------
    pandas.Series
        By gene.

    Raises
    ------
    InputError
        If the graph has no edge, or no gene is in enough cells.
    """
    expression = log_normalize(counts)
    tested = np.flatnonzero(expression.getnnz(axis=0) >= max(3, min_cell_share * expression.shape[0]))
    if not graph.nnz or not len(tested):
        raise InputError("no gene is in enough cells of a graph with edges to look for spatial patterns.")
    names = pd.Index(np.asarray(genes, dtype=object)[tested])
    ranked = pd.Series(morans_i(graph, expression[:, tested]), index=names).dropna()
    return ranked.sort_values(ascending=False, kind="stable")


def morans_i(graph: Any, values: Any) -> NDArray[np.float64]:
    """Moran's I of each column of a cells x genes matrix.

    Parameters
    ----------
    graph
        Cells x cells, sparse: the weights of neighbours, zero on the diagonal.
    values
        Cells x genes, sparse.

    Returns
    -------
    numpy.ndarray
        A value per gene; NaN for a gene that is the same in all cells.

    Notes
    -----
    With z the values less their mean m and w the weights, I = n / sum(w) * z'wz / z'z (Moran, Biometrika 37, 1950).
    The products are expanded so that the values stay sparse: z'wz = x'wx - m (w1 + w'1)'x + m^2 sum(w).
    """
    x = sparse.csc_matrix(values, dtype=np.float64)
    w = sparse.csr_matrix(graph, dtype=np.float64)
    n = x.shape[0]
    total = w.sum()
    mean = np.asarray(x.mean(axis=0)).ravel()
    degree = np.asarray(w.sum(axis=0)).ravel() + np.asarray(w.sum(axis=1)).ravel()
    between = np.asarray(x.multiply(w @ x).sum(axis=0)).ravel() - mean * (degree @ x) + mean**2 * total
    within = np.asarray(x.multiply(x).sum(axis=0)).ravel() - n * mean**2
    varies = within > 1e-12 * n
    statistic = np.full(len(mean), np.nan)
    np.divide(n * between, total * within, out=statistic, where=varies)
    return statistic

"""Which gene to show on a map of the tissue."""

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.errors import InputError
from spaf_analysis.keys import CONNECTIVITIES
from spaf_analysis.metrics import log_normalize


def spatially_variable_genes(
    adata: ad.AnnData, *, connectivities_key: str = CONNECTIVITIES, min_cell_share: float = 0.05
) -> pd.Series:
    """Moran's I of the log-normalised counts of each gene on the graph of neighbouring cells.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X` and a cell graph in `obsp`.
    connectivities_key
        The graph in `obsp`.
    min_cell_share
        Genes found in a smaller share of the cells are left out: a handful of cells gives no pattern.

    Returns
    -------
    pandas.Series
        Moran's I by gene, highest first (1: neighbours alike, 0: no spatial pattern).

    Raises
    ------
    InputError
        If there is no such graph, it has no edge, or no gene is in enough cells.
    """
    if connectivities_key not in adata.obsp:
        raise InputError(
            f"obsp has no cell graph {connectivities_key!r}; it has: {', '.join(adata.obsp) or 'nothing'}."
        )
    graph = adata.obsp[connectivities_key]
    expression = log_normalize(adata.X)
    tested = np.flatnonzero(expression.getnnz(axis=0) >= max(3, min_cell_share * adata.n_obs))
    if not graph.nnz or not len(tested):
        raise InputError("no gene is in enough cells of a graph with edges to look for spatial patterns.")
    ranked = pd.Series(morans_i(graph, expression[:, tested]), index=adata.var_names[tested].astype(str)).dropna()
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
    return np.divide(n * between, total * within, out=np.full(len(mean), np.nan), where=varies)

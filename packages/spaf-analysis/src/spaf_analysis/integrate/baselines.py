"""What an integrated embedding stands beside: principal components in three recipes, and what means nothing."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

from spaf_analysis.errors import InputError
from spaf_analysis.metrics import log_normalize

N_COMPONENTS = 50
_MOST_FOR_COVARIANCE = 2_000  # genes; with more the leading components are iterated
_MOST_SCALED = 5_000  # genes that are made dense ..
_MOST_DENSE = 200_000_000  # .. and values, of many cells
_CLIP = 10.0

PCA_ROW, SCALED_ROW, HVG_ROW = "PCA", "scaled PCA", "HVG + PCA"
PROJECTION_ROW, RANDOM_ROW = "random projection", "random numbers"


def baseline_embeddings(counts: Any, *, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Embeddings that need no model, each of at most 50 dimensions.

    Parameters
    ----------
    counts
        Cells x genes.
    seed
        Of what is random.

    Returns
    -------
    dict
        "PCA" of log1p of counts per 10,000; "scaled PCA" of the same as z-scores, clipped at 10 (of the 5,000 genes
        that vary most, where there are more; of fewer where more than 40,000 cells would be dense); "HVG + PCA" of the
        variable genes by scanpy's defaults (flavor "seurat", means from .0125 to 3, dispersions above .5; all genes
        where these are fewer than 51);
        "random projection" of the logarithms; "random numbers".
    """
    logs = log_normalize(counts)
    n, n_genes = logs.shape
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n_genes, N_COMPONENTS)) / np.sqrt(N_COMPONENTS)
    return {
        PCA_ROW: components(logs, seed=seed),
        SCALED_ROW: components(_scaled(logs), seed=seed),
        HVG_ROW: components(sparse.csr_matrix(logs[:, _variable(logs)]), seed=seed),
        PROJECTION_ROW: np.asarray(logs @ directions),
        RANDOM_ROW: rng.normal(size=(n, N_COMPONENTS)),
    }


def components(matrix: Any, *, n_components: int = N_COMPONENTS, seed: int = 0) -> NDArray[np.float64]:
    """Return leading principal components of the rows of a matrix, sparse or dense."""
    n_components = max(1, min(n_components, min(matrix.shape) - 1))
    few = matrix.shape[1] <= _MOST_FOR_COVARIANCE
    pca = PCA(n_components, svd_solver="covariance_eigh" if few else "arpack", random_state=seed)
    return np.asarray(pca.fit_transform(matrix), dtype=np.float64)


def has_harmony() -> bool:
    """Whether harmonypy is installed."""
    return importlib.util.find_spec("harmonypy") is not None


def harmony(embedding: NDArray[np.floating], batch: NDArray[np.integer], *, seed: int = 0) -> NDArray[np.float64]:
    """Embedding after Harmony (Korsunsky et al., Nature Methods 16, 2019), as harmonypy computes it.

    Parameters
    ----------
    embedding
        Cells x dimensions.
    batch
        Of each cell.
    seed
        Of Harmony's clusters.

    Returns
    -------
    numpy.ndarray
        Cells x dimensions.

    Raises
    ------
    InputError
        If harmonypy is not installed.
    """
    if not has_harmony():
        raise InputError("Harmony needs the extra: pip install 'spaf-analysis[integration]'.")
    import harmonypy

    named = pd.DataFrame({"batch": batch.astype(str)})
    found = harmonypy.run_harmony(
        np.asarray(embedding, dtype=np.float64), named, "batch", verbose=False, random_state=seed, ncores=1
    )
    corrected = np.asarray(found.Z_corr, dtype=np.float64)
    # Before 2.0 it was dimensions x cells.
    return corrected if corrected.shape == embedding.shape else corrected.T


def centred(embedding: NDArray[np.floating], batch: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the embedding less the mean of each batch."""
    result = np.array(embedding, dtype=np.float64)
    for code in np.unique(batch):
        result[batch == code] -= result[batch == code].mean(axis=0)
    return result


def _variable(logs: sparse.csr_matrix) -> NDArray[np.int64]:
    table = ad.AnnData(logs)
    with warnings.catch_warnings():
        # Genes without any count have no dispersion, which scanpy's bins meet with warnings of its libraries.
        warnings.simplefilter("ignore")
        try:
            sc.pp.highly_variable_genes(table, flavor="seurat")
        except ValueError:  # bins of a panel of few genes can be empty
            return np.arange(logs.shape[1])
    found = np.flatnonzero(table.var["highly_variable"].to_numpy())
    return found if len(found) > N_COMPONENTS else np.arange(logs.shape[1])


def _scaled(logs: sparse.csr_matrix) -> NDArray[np.float32]:
    mean = np.asarray(logs.mean(axis=0)).ravel()
    square = np.asarray(logs.multiply(logs).mean(axis=0)).ravel()
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    genes = np.flatnonzero(deviation > 1e-9)
    most = min(_MOST_SCALED, max(_MOST_DENSE // logs.shape[0], N_COMPONENTS + 1))
    if len(genes) > most:
        genes = np.sort(genes[np.argsort(-deviation[genes], kind="stable")[:most]])
    dense = logs[:, genes].toarray().astype(np.float32)
    dense -= mean[genes].astype(np.float32)
    dense /= deviation[genes].astype(np.float32)
    return np.asarray(np.clip(dense, -_CLIP, _CLIP, out=dense))

"""What each method of annotation reads of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA as PrincipalComponents

from spaf_analysis.annotate.compute import BOTH, COUNTS, EMBEDDING, NEAREST, PCA
from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts, shared_genes
from spaf_analysis.tables import embedding_of, loaded
from spaf_train.evaluation import MAX_GENES, log_scaled, most_variable, row_sums
from spaf_train.finetuning import comparable_pooling

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad

    from spaf_model import Model

_N_COMPONENTS = 30


def features_of(
    asked: ad.AnnData,
    known: ad.AnnData,
    codes: NDArray[np.int64],
    method: str,
    *,
    key: str | None,
    model: Model[Any, Any] | str | Path | None,
    layer: str | None,
    reference_layer: str | None,
) -> dict[str, NDArray[np.float32]]:
    """Return what each method reads of both tables, the reference first; of one method where one is named."""
    counted = checked_counts(known, reference_layer, "the reference", option="reference_layer (--reference-layer)")
    of_asked = checked_counts(asked, layer, "the query", option="layer (--layer)")
    shared = shared_genes(known, asked, ("the reference", "the query"))
    both = sparse.csr_matrix(sparse.vstack([shared.counts(counted, 0), shared.counts(of_asked, 1)]))
    labelled = np.flatnonzero(codes >= 0)
    features = of_counts(both, labelled, COUNTS if method == BOTH else method)
    if (key is not None or model is not None) and method in ("auto", EMBEDDING, BOTH):
        embedding = _embedding(asked, known, key, model, layer, reference_layer)
        if method in ("auto", EMBEDDING):
            features[EMBEDDING] = embedding
        if method in ("auto", BOTH):
            parts = (embedding, features[COUNTS])
            scaled = [part / (part[labelled].std() or 1.0) * np.sqrt(30 / part.shape[1]) for part in parts]
            features[BOTH] = np.concatenate(scaled, axis=1).astype(np.float32)
    if method == BOTH:
        del features[COUNTS]
    return features


def of_counts(
    counts: sparse.csr_matrix, labelled: NDArray[np.int64], method: str = "auto"
) -> dict[str, NDArray[np.float32]]:
    """Return what the methods read that need no embedding, of one method where one is named.

    Parameters
    ----------
    counts
        Cells x genes.
    labelled
        Cells that depth, genes and components are taken from.
    method
        One of them, or "auto" for all.
    """
    logs = _log_counts(counts, labelled)
    features: dict[str, NDArray[np.float32]] = {}
    if method in ("auto", COUNTS):
        features[COUNTS] = logs
    if method in ("auto", PCA, NEAREST):
        # Of counts over their median depth: per 10,000, those of a small panel are hardly more than present or absent.
        # k-NN in osmFISH (33 genes) gains .2 of macro-F1 by it.
        components = _components(logs, labelled)
        features |= {name: components for name in (PCA, NEAREST) if method in ("auto", name)}
    return features


def _components(values: NDArray[np.float32], fitted: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return leading principal components, fitted on some cells."""
    n = max(1, min(_N_COMPONENTS, values.shape[1] - 1, fitted.size - 1))
    model = PrincipalComponents(n, svd_solver="covariance_eigh").fit(values[fitted])
    return np.asarray(model.transform(values), dtype=np.float32)


def finite(embedding: NDArray[np.floating], known: NDArray[np.floating] | None = None) -> NDArray[np.float32]:
    """Return an embedding in which cells without one are where the mean of the known cells is.

    Raises
    ------
    InputError
        If no known cell has one.
    """
    of_known = embedding if known is None else known
    there = np.isfinite(of_known).all(axis=1)
    if not there.any():
        raise InputError("no cell of the reference has an embedding.")
    mean = of_known[there].mean(axis=0)
    return np.where(np.isfinite(embedding).all(axis=1, keepdims=True), embedding, mean).astype(np.float32)


def _log_counts(counts: sparse.csr_matrix, fitted: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return log counts over the median total of the labelled cells, of the genes that vary most in them."""
    every = sparse.csr_array(counts)
    known = every[fitted]
    totals = row_sums(known)
    values = log_scaled(every, float(np.median(totals[totals > 0])) if totals.any() else 1.0)
    if values.shape[1] > MAX_GENES and totals.any():
        values = values[:, most_variable(known)]
    return np.asarray(values.toarray(), dtype=np.float32)


def _embedding(
    asked: ad.AnnData,
    known: ad.AnnData,
    key: str | None,
    model: Model[Any, Any] | str | Path | None,
    layer: str | None,
    reference_layer: str | None,
) -> NDArray[np.float32]:
    """Return the embedding of both tables; cells without one are where the reference's mean is."""
    tables = ((known, reference_layer, "the reference"), (asked, layer, "the query"))
    if key is None:
        assert model is not None
        made = loaded(model)
        comparable = comparable_pooling(made, None)
        parts = [
            embedding_of(made, table, np.arange(table.n_obs), layer=of_layer, method=comparable).astype(np.float32)
            for table, of_layer, _ in tables
        ]
    else:
        for table, _, where in tables:
            if key not in table.obsm:
                raise InputError(
                    f"obsm of {where} has no embedding {key!r}; it has: {', '.join(table.obsm) or 'none'}."
                )
        parts = [np.asarray(table.obsm[key], dtype=np.float32) for table, _, _ in tables]
    if parts[0].shape[1] != parts[1].shape[1]:
        raise InputError(
            f"the embeddings have {parts[0].shape[1]} dimensions in the reference and {parts[1].shape[1]} in the "
            "query; they must be of one model."
        )
    return finite(np.concatenate(parts), parts[0])

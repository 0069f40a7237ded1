"""Labels carried from a labelled AnnData to another one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.annotate.compute import BOTH, COUNTS, EMBEDDING, METHODS, NEAREST, PCA, Annotation, annotate_arrays
from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts, shared_genes
from spaf_analysis.keys import LABEL_PRED, SPATIAL
from spaf_analysis.metrics import pca_embedding
from spaf_analysis.tables import check_cell_names, embedding_of, labels_of, loaded, slide_names, table_of
from spaf_model import check_key
from spaf_train.evaluation import MAX_GENES, inner_folds, log_scaled, most_variable, row_sums
from spaf_train.finetuning import comparable_pooling

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad

    from spaf_model import Cells, Model

UNKNOWN = "unknown"
_MANY = 2  # times the share of the reference that is called unknown
logger = logging.getLogger(__name__)


def annotate(
    query: Cells,
    reference: Cells,
    label: str,
    *,
    method: str = "auto",
    key: str | None = None,
    model: Model[Any, Any] | str | Path | None = None,
    donor: str | None = None,
    unknown: float = 0.05,
    layer: str | None = None,
    reference_layer: str | None = None,
    seed: int = 0,
    key_added: str = LABEL_PRED,
    table_key: str | None = None,
) -> Annotation:
    """Label the cells of a query by a reference.

    Writes ``obs[key_added]`` (the class, or "unknown"), ``obs[key_added + "_probability"]`` (of the likeliest class)
    and ``uns[key_added]`` (methods beside each other, reliability, rejection curve, classes, confusion matrix).

    Parameters
    ----------
    query
        Cells with counts, or a SpatialData.
    reference
        Labelled cells with counts. Genes are matched by Ensembl id or symbol; those that both measure are read.
    label
        Column of its `obs`.
    method
        Logistic regression on ``log counts`` or ``PCA``, ``k-NN`` in the components, and with an embedding
        ``embedding`` and ``embedding and log counts``; ``auto``: the best on held-out parts of the reference.
    key
        Embedding in `obsm` of both tables, of any model.
    model
        Embeds both tables where no `key` is given.
    donor
        Column of the reference's `obs` by which parts are held out whole. None: strips of each slide where there are
        coordinates, else cells at random.
    unknown
        Share of held-out cells of the reference that may be called unknown; cells of the query that are less certain
        than that are.
    layer, reference_layer
        Layers that hold the counts; None: X.
    seed
        Of parts that are drawn at random.
    key_added
        Key to write.
    table_key
        Table of a SpatialData query; may be None where it has only one.

    Returns
    -------
    Annotation
        The same as arrays.

    Raises
    ------
    InputError
        If a table holds no counts or they share too few genes, a column or embedding is missing, or an option cannot be
        used. Nothing is written then.

    Examples
    --------
    ::

        import spaf_analysis as spaf

        spaf.tl.annotate(query, reference, "cell_type")
        query.obs["label_pred"]
    """
    check_key(key_added)
    asked, known = table_of(query, table_key), table_of(reference)
    if method not in ("auto", *METHODS):
        raise InputError(f"there is no method {method!r}; the methods are: auto, {', '.join(METHODS)}.")
    if method in (EMBEDDING, BOTH) and key is None and model is None:
        raise InputError(f"the method {method!r} needs an embedding: name one with key (--key) or a model (--model).")
    check_cell_names(asked)
    codes, classes = labels_of(known, label, "label")
    folds = _folds(known, codes, donor, seed)
    features = _features(asked, known, codes, method, key, model, layer, reference_layer)
    found = annotate_arrays(features, codes, classes, folds, method=method, unknown=unknown)
    share = float((found.codes < 0).mean())
    if share > _MANY * unknown:
        logger.warning(
            "%.0f %% of the cells are called unknown, where %.0f %% of the held-out cells of the reference would be: "
            "the query is unlike the reference. unknown=0 (--unknown 0) labels every cell.", 100 * share, 100 * unknown,
        )  # fmt: skip
    _write(asked, found, key_added)
    asked.uns[key_added] = record(found) | {"label": label, "n_reference": int((codes >= 0).sum())}
    return found


def record(found: Annotation) -> dict[str, Any]:
    """Return what was found out about the labels, in the form that an h5ad holds."""
    return {
        "method": found.method,
        "threshold": found.threshold,
        "share_unknown": float((found.codes < 0).mean()) if len(found.probabilities) else 0.0,
        "judged": found.judged,
        "reliability": found.reliability,
        "rejection": found.rejection,
        "per_class": found.per_class,
        "confusion": found.confusion,
    }


def _folds(known: ad.AnnData, codes: NDArray[np.int64], donor: str | None, seed: int) -> NDArray[np.int64]:
    """Divide the reference into parts, each predicted from the others; a class of one part alone is then missed."""
    groups = None
    if donor is not None:
        donors, _ = labels_of(known, donor, "donor")
        groups = donors.astype(str)
    places = np.asarray(known.obsm[SPATIAL], dtype=np.float64)[:, :2] if SPATIAL in known.obsm else None
    folds = np.zeros(codes.size, dtype=np.int64)
    rows = np.flatnonzero(codes >= 0)
    folds[rows] = inner_folds(rows, coordinates=places, slide=slide_names(known), groups=groups, seed=seed)
    return folds


def _features(
    asked: ad.AnnData,
    known: ad.AnnData,
    codes: NDArray[np.int64],
    method: str,
    key: str | None,
    model: Model[Any, Any] | str | Path | None,
    layer: str | None,
    reference_layer: str | None,
) -> dict[str, NDArray[np.float32]]:
    """Return what each method reads of both tables, the reference first; of one method where one is named."""
    of_known = checked_counts(known, reference_layer, "the reference")
    of_asked = checked_counts(asked, layer, "the query")
    shared = shared_genes(known, asked, ("the reference", "the query"))
    both = sparse.csr_matrix(sparse.vstack([shared.counts(of_known, 0), shared.counts(of_asked, 1)]))
    labelled = np.flatnonzero(codes >= 0)
    features: dict[str, NDArray[np.float32]] = {}
    logs = _log_counts(both, labelled)
    if method in ("auto", COUNTS):
        features[COUNTS] = logs
    if method in ("auto", PCA, NEAREST):
        components = pca_embedding(both, labelled).coordinates.astype(np.float32)
        features |= {name: components for name in (PCA, NEAREST) if method in ("auto", name)}
    if (key is not None or model is not None) and method in ("auto", EMBEDDING, BOTH):
        embedding = _embedding(asked, known, key, model, layer, reference_layer)
        if method in ("auto", EMBEDDING):
            features[EMBEDDING] = embedding
        if method in ("auto", BOTH):
            scaled = [part / (part[labelled].std() or 1.0) * np.sqrt(30 / part.shape[1]) for part in (embedding, logs)]
            features[BOTH] = np.concatenate(scaled, axis=1).astype(np.float32)
    return features


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
    finite = np.isfinite(parts[0]).all(axis=1)
    if not finite.any():
        raise InputError("no cell of the reference has an embedding.")
    mean = parts[0][finite].mean(axis=0)
    joined = np.concatenate(parts)
    return np.where(np.isfinite(joined).all(axis=1, keepdims=True), joined, mean).astype(np.float32)


def _write(asked: ad.AnnData, found: Annotation, key: str) -> None:
    codes = found.codes
    names = [*found.classes, *([] if UNKNOWN in found.classes else [UNKNOWN])]
    labels = np.array(found.classes, dtype=object)[np.maximum(codes, 0)]
    labels[codes < 0] = UNKNOWN
    asked.obs[key] = pd.Categorical(labels, categories=names)
    asked.obs[f"{key}_probability"] = found.probabilities.max(axis=1)

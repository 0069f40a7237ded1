"""Labels carried from a labelled AnnData to another one."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.annotate.compute import BOTH, EMBEDDING, METHODS, TUNED, Annotation, annotate_arrays
from spaf_analysis.annotate.features import features_of
from spaf_analysis.annotate.fine_tuned import TUNINGS, Tuning, fine_tuned_logits
from spaf_analysis.annotate.notes import notes_of, spelling_sentence
from spaf_analysis.errors import InputError
from spaf_analysis.keys import LABEL_PRED, SPATIAL, UNKNOWN
from spaf_analysis.tables import check_cell_names, labels_of, places_of, slide_names, table_of
from spaf_model import check_key
from spaf_train.evaluation import inner_folds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import anndata as ad

    from spaf_model import Cells, Model

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
    fine_tune: str | None = None,
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
        ``embedding`` and ``embedding and log counts``, with `fine_tune` ``fine-tuned``; ``auto``: the best on held-out
        parts of the reference.
    key
        Embedding in `obsm` of both tables, of any model.
    model
        Embeds both tables where no `key` is given.
    donor
        Column of the reference's `obs` by which parts are held out whole. None: strips of each slide where there are
        coordinates, else cells at random.
    fine_tune
        "lora" or "full": also train the model for these labels, once for each held-out part, as the method
        ``fine-tuned``; minutes to hours. The model must be of a family that is trained by batches.
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
    if method not in ("auto", *METHODS, TUNED):
        raise InputError(f"there is no method {method!r}; the methods are: auto, {', '.join((*METHODS, TUNED))}.")
    if method in (EMBEDDING, BOTH) and key is None and model is None:
        raise InputError(f"the method {method!r} needs an embedding: name one with key (--key) or a model (--model).")
    tuning = _tuning(fine_tune, method, model)
    check_cell_names(asked)
    codes, classes = _usable(known, *labels_of(known, label, "label"), label, reference_layer)
    folds = _folds(known, codes, donor, seed)
    features = features_of(
        asked, known, codes, method, key=key, model=model, layer=layer, reference_layer=reference_layer
    )
    given = {}
    if tuning is not None and model is not None and method in ("auto", TUNED):
        given[TUNED] = fine_tuned_logits(
            model, asked, known, codes, classes, folds, tuning=tuning, layer=layer, reference_layer=reference_layer,
            seed=seed,
        )  # fmt: skip
    found = annotate_arrays(features, codes, classes, folds, method=method, unknown=unknown, given=given)
    empty = _without_counts(asked, layer)
    if empty.any():
        logger.warning("%d cells of the query have no counts and are called unknown.", int(empty.sum()))
        found = replace(found, probabilities=np.where(empty[:, None], np.nan, found.probabilities))
    notes = notes_of(found, codes, folds, label)
    spelling = spelling_sentence(classes, label)
    if spelling:
        logger.warning("%s", spelling)
    share = float((found.codes < 0).mean())
    if share > _MANY * unknown:
        logger.warning(
            "%.0f %% of the cells are called unknown, where %.0f %% of the held-out cells of the reference would be: "
            "the query is unlike the reference. unknown=0 (--unknown 0) labels every cell.", 100 * share, 100 * unknown,
        )  # fmt: skip
    _write(asked, found, key_added)
    asked.uns[key_added] = record(found) | {
        "label": label, "n_reference": int((codes >= 0).sum()), "notes": np.array(notes, dtype=object),
        "unknown": float(unknown),
    }  # fmt: skip
    return found


def _tuning(fine_tune: str | None, method: str, model: object) -> Tuning | None:
    """Return how the model is trained, checked; None where it is not."""
    if fine_tune is None:
        if method == TUNED:
            raise InputError(f"the method {TUNED!r} needs to know how: fine_tune (--fine-tune) lora or full.")
        return None
    for tuning in TUNINGS:
        if tuning == fine_tune:
            if model is None:
                raise InputError("fine-tuning needs a model: name one with model (--model).")
            return tuning
    raise InputError(f"fine_tune must be one of {', '.join(TUNINGS)}, not {fine_tune!r}.")


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


def _without_counts(table: ad.AnnData, layer: str | None) -> NDArray[np.bool_]:
    """Return which cells have no count of any gene."""
    matrix = table.X if layer is None else table.layers[layer]
    if matrix is None:
        return np.zeros(table.n_obs, dtype=bool)
    matrix = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix
    return np.asarray(np.asarray(matrix.sum(axis=1)).ravel() == 0)


def _usable(
    known: ad.AnnData, codes: NDArray[np.int64], classes: Sequence[str], label: str, layer: str | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Leave out cells without counts, and those of a class that is called as what cannot be told is.

    Raises
    ------
    InputError
        If every class has one cell.
    """
    codes = np.where(_without_counts(known, layer), -1, codes)
    names = list(classes)
    if UNKNOWN in names:
        at = names.index(UNKNOWN)
        logger.warning(
            "%d cells of the reference are %r in obs[%r]: that is no class, and they are left out.",
            int((codes == at).sum()), UNKNOWN, label,
        )  # fmt: skip
        codes = np.where(codes == at, -1, codes - (codes > at))
        names.pop(at)
    if np.bincount(codes[codes >= 0], minlength=1).max() < 2:
        raise InputError(
            f"no class of obs[{label!r}] of the reference has two cells, so there is nothing to learn it from: is it "
            "the column that is meant?"
        )
    return codes, names


def _folds(known: ad.AnnData, codes: NDArray[np.int64], donor: str | None, seed: int) -> NDArray[np.int64]:
    """Divide the reference into parts, each predicted from the others; a class of one part alone is then missed."""
    groups = None
    if donor is not None:
        donors, _ = labels_of(known, donor, "donor")
        groups = donors.astype(str)
    places = places_of(known) if SPATIAL in known.obsm else None
    folds = np.zeros(codes.size, dtype=np.int64)
    rows = np.flatnonzero(codes >= 0)
    folds[rows] = inner_folds(rows, coordinates=places, slide=slide_names(known), groups=groups, seed=seed)
    return folds


def _write(asked: ad.AnnData, found: Annotation, key: str) -> None:
    codes = found.codes
    names = [*found.classes, *([] if UNKNOWN in found.classes else [UNKNOWN])]
    labels = np.array(found.classes, dtype=object)[np.maximum(codes, 0)]
    labels[codes < 0] = UNKNOWN
    asked.obs[key] = pd.Categorical(labels, categories=names)
    asked.obs[f"{key}_probability"] = found.probabilities.max(axis=1)

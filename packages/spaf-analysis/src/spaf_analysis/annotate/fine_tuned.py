"""A model that is trained for the labels of a reference, as one more method of annotation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from spaf_analysis.errors import InputError
from spaf_analysis.keys import SPATIAL
from spaf_model import Model
from spaf_train import FinetuneConfig, finetune_labels, predict_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

Tuning = Literal["full", "lora"]
TUNINGS: tuple[Tuning, ...] = get_args(Tuning)
_LABEL, _PART, _PREDICTED = "spaf_label", "spaf_part", "spaf_predicted"
_LEAST = 1e-6  # probability of any class


def fine_tuned_logits(
    model: Model[Any, Any] | str | Path,
    asked: ad.AnnData,
    known: ad.AnnData,
    codes: NDArray[np.int64],
    classes: Sequence[str],
    folds: NDArray[np.int64],
    *,
    tuning: Tuning,
    config: FinetuneConfig | None = None,
    layer: str | None = None,
    reference_layer: str | None = None,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train on all parts of a reference but one, for each of them, and predict.

    Parameters
    ----------
    model
        A model of a family that is trained by batches.
    asked, known
        The query and the reference.
    codes, classes, folds
        Labels of the reference, their names, and the parts.
    tuning
        "full" or "lora", see `spaf_train.FinetuneConfig`: what is trained is kept only where it beats a probe of the
        model as given, on training cells that were held out for the question.
    config
        Further choices; the defaults if None.
    layer, reference_layer
        With the counts of the query and of the reference.
    seed
        Of the training.

    Returns
    -------
    tuple
        Logits of the labelled cells of the reference, each by the model that did not see its part, and of the query:
        of the mean of these models' probabilities.
    """
    config = config or FinetuneConfig(method=tuning, seed=seed)
    query = _bare(asked, layer)
    table = _bare(known, reference_layer)
    labelled = np.flatnonzero(codes >= 0)
    table.obs[_LABEL] = np.where(codes >= 0, np.array(classes, dtype=object)[np.maximum(codes, 0)], "")
    held = np.zeros((labelled.size, len(classes)))
    of_query = np.zeros((query.n_obs, len(classes)))
    parts = np.unique(folds[labelled])
    if parts.size < 2:
        raise InputError("the reference is one part alone, so nothing can be held out to tell what training brings.")
    with tempfile.TemporaryDirectory() as folder:
        source = _directory(model, Path(folder))
        for part in parts:
            known_classes = np.unique(codes[(codes >= 0) & (folds != part)])
            # A class that lies in this part alone cannot be learnt from the others, and judges nothing here.
            judged = (folds == part) & np.isin(codes, known_classes)
            learnt = (folds != part) & (codes >= 0)
            table.obs[_PART] = np.where(judged, "validation", np.where(learnt, "train", ""))
            out = Path(folder) / f"part-{part}"
            finetune_labels(source, table, _LABEL, out, config=config, split=_PART, n_replicates=2)
            of_part = np.flatnonzero(folds[labelled] == part)
            held[of_part] = _probabilities(table[labelled[of_part]].copy(), out, classes)
            of_query += _probabilities(query, out, classes) / parts.size
    return np.log(np.maximum(held, _LEAST)), np.log(np.maximum(of_query, _LEAST))


def _bare(table: ad.AnnData, layer: str | None) -> ad.AnnData:
    """Return counts, genes, context and places of cells, to which labels can be written."""
    counts = table.X if layer is None else table.layers[layer]
    places = {SPATIAL: table.obsm[SPATIAL]} if SPATIAL in table.obsm else {}
    return ad.AnnData(counts, obs=table.obs.copy(), var=table.var, obsm=places)


def _directory(model: Model[Any, Any] | str | Path, folder: Path) -> str | Path:
    if not isinstance(model, Model):
        return model
    model.save_pretrained(folder / "given")
    return folder / "given"


def _probabilities(table: ad.AnnData, model: Path, classes: Sequence[str]) -> NDArray[np.float64]:
    """Return probabilities of the classes; equal ones for cells that the model cannot read."""
    predict_labels(table, model, key_added=_PREDICTED)
    found = np.zeros((table.n_obs, len(classes)))
    names = [list(classes).index(str(name)) for name in table.uns[_PREDICTED]["classes"]]
    found[:, names] = table.obsm[f"{_PREDICTED}_probabilities"]
    return np.where(np.isfinite(found).all(axis=1, keepdims=True), found, 1.0 / len(classes))

"""Fine-tuning for labels of cells."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

import spaf_data
from spaf_data import slides_of_cells
from spaf_model import CellCounts, CellSource, InputError, Model, ReadingOptions, load_model
from spaf_train._record import run_record
from spaf_train.evaluation.classification import evaluate_predictions, prediction_differences
from spaf_train.evaluation.label_baselines import baseline_predictions, predicted_by_probe
from spaf_train.evaluation.log_counts import LogCounts
from spaf_train.evaluation.probing import Block, inner_folds
from spaf_train.evaluation.random_encoder import random_twin
from spaf_train.finetuning.config import FinetuneConfig
from spaf_train.finetuning.label_card import label_card
from spaf_train.finetuning.label_probe import (
    BOTH,
    COUNTS,
    ChosenProbe,
    LabelInputs,
    choose_head,
    comparable_pooling,
    head_of,
    settings_of,
)
from spaf_train.finetuning.label_tuning import require_trainable, tune
from spaf_train.finetuning.labelled_cells import TRAIN, LabelledCells, labelled_cells
from spaf_train.finetuning.result import FinetuneResult, require_free, write_finetuned
from spaf_train.finetuning.training import Fit
from spaf_train.trainer.distributed import claimed, ranks
from spaf_train.trainer.reproducible import reproducible

if TYPE_CHECKING:
    import anndata

    from spaf_train.finetuning.label_head import LabelHead

logger = logging.getLogger(__name__)


def finetune_labels(
    model_dir: str | Path,
    adata: anndata.AnnData,
    label: str,
    out: str | Path,
    *,
    config: FinetuneConfig = FinetuneConfig(),
    split: str | None = None,
    hold_out: tuple[str, Sequence[str]] | None = None,
    min_cells: int = 0,
    gap: float = spaf_data.defaults.GAP,
    tissue: str | None = None,
    condition: str | None = None,
    species: str | None = None,
    assay: str | None = None,
    layer: str | None = None,
    n_replicates: int = 1_000,
) -> FinetuneResult:
    """Teach a model to tell labels of cells, such as cell types or niches.

    Writes a model directory with ``labels.json`` and ``label_head.safetensors`` (see `predict_labels`), which
    `load_model` reads as any other, ``finetune.json`` and a card with what was done. Nothing is written before the end.

    The head is a logistic regression on log counts, or on those beside the embedding where folds inside the training
    cells say that this is better; penalty and weights of classes are chosen there too. With ``method="full"`` or
    ``"lora"`` the encoder is trained as well, beginning with that probe as its head (Kumar et al. 2022, "Fine-tuning
    can distort pretrained features and underperform out-of-distribution"), and is kept only if it beats the probe on
    training cells that were held out for the question.

    Beside the result stand logistic regressions on log counts, on principal components, on the embedding alone and on
    that of an encoder with random weights, all with their penalties chosen in the same way; nearest neighbours in
    principal components; and the most frequent class. Whatever is fitted is fitted on the training part.

    Parameters
    ----------
    model_dir
        Model to begin with, of any family; ``full`` and ``lora`` need one that is trained by batches.
    adata
        Raw counts, cells x genes, with ``obs[label]``. ``obsm["spatial"]`` (um) makes intervals those of tissue.
    label
        Column of ``obs``.
    out
        Folder to make.
    config
        Method and numbers.
    split, hold_out, min_cells, gap
        How cells are divided, see `labelled_cells`. Scores are of the validation part, and of the test part if there
        is one.
    tissue, condition, species, assay, layer
        As for `spaf_model.Model.embed`.
    n_replicates
        Resampled tissues behind each interval.

    Raises
    ------
    InputError
        If `out` holds something, the method cannot be used on the model, and as `labelled_cells` and `Model.embed`.
    TrainingDivergedError
        If a loss or a gradient is not finite.

    Examples
    --------
    ::

        from spaf_train import FinetuneConfig, finetune_labels, predict_labels

        config = FinetuneConfig(method="lora", rank=16, alpha=32.0)
        result = finetune_labels("runs/first/model", adata, "cell_type", "models/cell-types", config=config)
        result.scores
        predict_labels(other, "models/cell-types")
    """
    started = time.perf_counter()
    out = Path(out)
    config.check_task("labels")
    require_free(out)
    # What is wrong with the labels is said before a model is read, and once more of the cells that it can read.
    labelled_cells(adata, label, split=split, hold_out=hold_out, min_cells=min_cells, gap=gap)
    with (
        ranks(config.device) as group,
        claimed(out, "spaf-train finetune", group),
        reproducible(group.device, config.threads),
    ):
        if group.world_size > 1:
            raise InputError("Fine-tuning runs in one process; start it without torchrun.")
        model = load_model(model_dir, device=group.device)
        require_trainable(model, config)
        pooling = comparable_pooling(model, config.pooling)
        options = ReadingOptions(tissue=tissue, condition=condition, species=species, assay=assay, layer=layer)
        cells = CellSource(adata, model.vocabulary, options, by_slide=model.reads_whole_slides).read()
        labels = labelled_cells(
            adata, label, split=split, hold_out=hold_out, min_cells=min_cells, gap=gap, readable=cells.n_genes > 0
        )
        if labels.left_out:
            left_out = ", ".join(labels.left_out)
            logger.warning("Classes with fewer than %d training cells are left out: %s.", min_cells, left_out)
        inputs = _read(model, adata, cells, labels, pooling, hold_out, config, layer)
        chosen = choose_head(inputs, config, for_tuning=config.method != "probe")
        judged = np.concatenate([inputs.rows(part) for part in labels.judged])
        head = given = chosen.head(inputs)
        embedding, tuning = inputs.embedding, None
        predictions: dict[str, NDArray[np.integer]] = {}
        baselines = _baselines(model, adata, inputs, judged, chosen, config, layer)
        if config.method != "probe":
            tuning = tune(model, inputs, chosen, config, group)
            logger.info("%s", tuning.decision)
            if tuning.probe is not None:
                head = head_of(inputs, tuning.probe, BOTH)
                embedding = embedded(model, cells, labels, pooling)
        predictions["fine-tuned model"] = _predict(head, inputs, embedding, judged)
        if head is not given:
            predictions["probe of the model as given"] = _predict(given, inputs, inputs.embedding, judged)
        predictions |= baselines
        scores, differences = _judge(inputs, predictions, n_replicates, config.seed)
        fit = Fit(steps=0, best_step=0, best={}, history=[]) if tuning is None else tuning.fit
        parameters = {
            "model": str(model_dir),
            "label": label,
            "divided_by": labels.divided_by,
            "min_cells": min_cells,
            "gap": gap,
            **options.as_record(),
            **dataclasses.asdict(config),
            "pooling": pooling,
        }
        record = run_record(
            "spaf-train finetune --task labels", parameters, started=started, packages=("scikit-learn", "peft")
        )
        record |= {
            "classes": list(labels.classes),
            "left_out": labels.left_out,
            "n_gap": labels.n_gap,
            "n_near": labels.n_near,
            "n_cells": {part: int(inputs.rows(part).size) for part in (TRAIN, *labels.judged)},
            "head": chosen.as_dict() if head is given else {**chosen.as_dict(), "reads": BOTH},
            "kept": "probe" if head is given else config.method,
            "decision": "" if tuning is None else tuning.decision,
            "decided_by": {} if tuning is None else tuning.macro_f1,
            "fit": dataclasses.asdict(fit),
            "scores": scores.to_dict("records"),
            "differences": differences.to_dict("records"),
        }
        model.card = f"{model.card.rstrip()}\n\n{label_card(record, labels, scores, differences)}"
        write_finetuned(out, model, record, more=head.save)
    return FinetuneResult(out, fit, scores, record, differences, _table(adata, inputs, judged, predictions))


def _table(
    adata: anndata.AnnData,
    inputs: LabelInputs,
    judged: NDArray[np.int64],
    predictions: Mapping[str, NDArray[np.integer]],
) -> pd.DataFrame:
    classes = np.array(inputs.labels.classes, dtype=object)
    columns = {name: classes[predicted] for name, predicted in predictions.items()}
    facts = {"part": inputs.labels.part[judged], "label": classes[inputs.codes[judged]]}
    return pd.DataFrame({**facts, **columns}, index=adata.obs_names[judged])


def embedded(
    model: Model[Any, Any], cells: CellCounts, labels: LabelledCells, pooling: str
) -> NDArray[np.float32]:  # fmt: skip
    """Return the embedding of the cells with a part and a label, (n_cells, D); others are NaN, or embedded as well."""
    if model.reads_whole_slides:
        return model.embed_counts(cells, method=pooling)[""]
    used = np.concatenate([labels.cells(part) for part in (TRAIN, *labels.judged)])
    found = model.embed_counts(cells.take(used), method=pooling)[""]
    states = np.full((cells.n_cells, found.shape[1]), np.nan, dtype=np.float32)
    states[used] = found
    return states


def _read(
    model: Model[Any, Any],
    adata: anndata.AnnData,
    cells: CellCounts,
    labels: LabelledCells,
    pooling: str,
    hold_out: tuple[str, Sequence[str]] | None,
    config: FinetuneConfig,
    layer: str | None,
) -> LabelInputs:
    rows = labels.cells(TRAIN)
    counts, log_counts = LogCounts.fit(adata, rows, layer=layer)
    slide = slides_of_cells(adata.obs)
    places = np.asarray(adata.obsm["spatial"], dtype=np.float64)[:, :2] if "spatial" in adata.obsm else None
    groups = None if hold_out is None else adata.obs[hold_out[0]].astype(str).to_numpy()
    return LabelInputs(
        labels=labels,
        cells=cells,
        pooling=pooling,
        embedding=embedded(model, cells, labels, pooling),
        counts=counts,
        log_counts=np.nan_to_num(log_counts),
        folds=inner_folds(rows, coordinates=places, slide=slide, groups=groups, seed=config.seed),
        coordinates=places,
        slide=slide,
    )


def _predict(
    head: LabelHead, inputs: LabelInputs, embedding: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.integer]:
    of_counts = None if head.counts is None else inputs.log_counts[rows]
    classes: NDArray[np.integer] = head.probabilities(head.features(embedding[rows], of_counts)).argmax(axis=1)
    return classes


def _baselines(
    model: Model[Any, Any],
    adata: anndata.AnnData,
    inputs: LabelInputs,
    judged: NDArray[np.int64],
    chosen: ChosenProbe,
    config: FinetuneConfig,
    layer: str | None,
) -> dict[str, NDArray[np.integer]]:
    rows = inputs.rows(TRAIN)
    settings = settings_of(config, rows.size)
    predictions = baseline_predictions(
        sparse.csr_matrix(adata.X if layer is None else adata.layers[layer]), inputs.codes, rows, judged,
        inputs.folds, settings, log_counts=inputs.log_counts,
        of_log_counts=chosen.settings(COUNTS),
    )  # fmt: skip
    twin = random_twin(model, config.seed)
    for name, states in (
        ("probe of the embedding alone", inputs.embedding),
        ("probe of random weights", embedded(twin, inputs.cells, inputs.labels, inputs.pooling)),
    ):
        predictions[name] = predicted_by_probe([Block(states)], inputs.codes, rows, judged, inputs.folds, settings)
    return predictions


def _judge(
    inputs: LabelInputs, predictions: Mapping[str, NDArray[np.integer]], n_replicates: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scores, and the differences of the first to every other, of each part that is judged."""
    tables: tuple[list[pd.DataFrame], list[pd.DataFrame]] = [], []
    first = 0
    for part in inputs.labels.judged:
        rows = inputs.rows(part)
        places = slice(first, first + rows.size)
        first += rows.size
        own = {name: predicted[places] for name, predicted in predictions.items()}
        for made, table in zip((evaluate_predictions, prediction_differences), tables, strict=True):
            judged = made(
                inputs.codes[rows], own, inputs.n_classes, inputs.tiles_of(rows), n_replicates=n_replicates, seed=seed
            )
            judged.insert(0, "part", part)
            table.append(judged)
    return pd.concat(tables[0], ignore_index=True), pd.concat(tables[1], ignore_index=True)

"""Fine-tuning for labels of cells."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

import spaf_data
from spaf_data import slides_of_cells
from spaf_model import CellCounts, CellSource, InputError, Model, ReadingOptions, embed_tokenised, load_model
from spaf_train._record import run_record
from spaf_train.evaluation.bootstrap import Tiles, spatial_tiles
from spaf_train.evaluation.classification import (
    baseline_predictions,
    evaluate_predictions,
    logistic_classifier,
)
from spaf_train.finetuning.adapters import adapted, training_mode
from spaf_train.finetuning.config import FinetuneConfig
from spaf_train.finetuning.label_head import LabelHead
from spaf_train.finetuning.label_training import LabelNetwork, LabelObjective, LabelStream
from spaf_train.finetuning.labelled_cells import TRAIN, VALIDATION, LabelledCells, labelled_cells
from spaf_train.finetuning.result import FinetuneResult, card_section, how_trained, require_free, write_finetuned
from spaf_train.finetuning.training import Fit, fit_with_patience
from spaf_train.objectives import GivenObjectives
from spaf_train.trainer.distributed import Ranks, claimed, ranks
from spaf_train.trainer.reproducible import reproducible

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger(__name__)

LABEL_MEASURES = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
_GROUPS = 1_000  # of cells without a place, for the bootstrap


@dataclasses.dataclass(frozen=True)
class _Cells:
    """All cells as the model reads them, with labels; cells of no part and cells without a gene have code -1."""

    counts: CellCounts
    codes: NDArray[np.int64]
    labels: LabelledCells

    def rows(self, part: str) -> NDArray[np.int64]:
        return np.flatnonzero((self.labels.part == part) & (self.codes >= 0))


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
    `spaf_model.load_model` loads as any other, ``finetune.json`` and a card with what was done. Nothing is
    written before the end.

    Beside the model stand the most frequent class, nearest neighbours and a logistic regression on principal
    components, a probe of an encoder with random weights and, where the encoder was trained, a probe of the one given.
    Whatever is fitted, scaling included, is fitted on the training part. Training begins with the probe as its head
    (Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution").

    Parameters
    ----------
    model_dir
        Model to begin with.
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
        If `out` holds something, and as `labelled_cells` and `spaf_model.Model.embed`.
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
        _check_model(model, config)
        options = ReadingOptions(tissue=tissue, condition=condition, species=species, assay=assay, layer=layer)
        source = CellSource(adata, model.vocabulary, options)
        counts = source.read()
        readable = model.tokeniser(counts).lengths > 0
        labels = labelled_cells(
            adata, label, split=split, hold_out=hold_out, min_cells=min_cells, gap=gap, readable=readable
        )
        if labels.left_out:
            left_out = ", ".join(labels.left_out)
            logger.warning("Classes with fewer than %d training cells are left out: %s.", min_cells, left_out)
        cells = _Cells(counts, labels.codes, labels)
        judged = np.concatenate([cells.rows(part) for part in labels.judged])
        predictions = _baselines(model, adata, cells, judged, config, layer)
        head, fit = _probe(model, cells, config), Fit(steps=0, best_step=0, best={}, history=[])
        if config.method != "probe":
            predictions["probe of the model as given"] = _predict(model, head, cells, judged)
            head, fit = _train(model, head, cells, config, group)
        predictions = {"fine-tuned model": _predict(model, head, cells, judged), **predictions}
        scores = _judge(adata, cells, judged, predictions, n_replicates, config.seed)
        parameters = {
            "model": str(model_dir),
            "label": label,
            "divided_by": labels.divided_by,
            "min_cells": min_cells,
            "gap": gap,
            **options.as_record(),
            **dataclasses.asdict(config),
        }
        record = run_record(
            "spaf-train finetune --task labels", parameters, started=started, packages=("scikit-learn", "peft")
        )
        record |= {
            "classes": list(labels.classes),
            "left_out": labels.left_out,
            "n_gap": labels.n_gap,
            "n_near": labels.n_near,
            "n_cells": {part: int(cells.rows(part).size) for part in (TRAIN, *labels.judged)},
            "fit": dataclasses.asdict(fit),
            "scores": scores.to_dict("records"),
        }
        model.card = f"{model.card.rstrip()}\n\n{_card(record, labels, fit, scores, config)}"
        write_finetuned(out, model, record, more=head.save)
    return FinetuneResult(out, fit, scores, record)


def _check_model(model: Model[Any, Any], config: FinetuneConfig) -> None:
    if model.reads_whole_slides:
        raise InputError(
            f"{model.source} is of the family {model.family!r}, which is fitted to whole slides: it cannot be "
            "fine-tuned."
        )
    if config.pooling not in model.methods:
        raise InputError(
            f"pooling must be one of {', '.join(model.methods)} for a model of the family {model.family!r}, not "
            f"{config.pooling!r}."
        )


def _probe(model: Model[Any, Any], cells: _Cells, config: FinetuneConfig) -> LabelHead:
    """Fit scaling and logistic regression on the embeddings of the training cells."""
    rows = cells.rows(TRAIN)
    fitted = logistic_classifier(config.regularisation, balanced=config.balance_classes)
    fitted.fit(_embedding(model, cells, rows, config.pooling), cells.codes[rows])
    return LabelHead.from_logistic(
        fitted, label=cells.labels.label, classes=cells.labels.classes, pooling=config.pooling
    )


def _train(
    model: Model[Any, Any], probe: LabelHead, cells: _Cells, config: FinetuneConfig, group: Ranks
) -> tuple[LabelHead, Fit]:
    """Train the head with all weights or with adapters, from the probe on; the model is changed in place."""
    # A head that fits at once does not drag the encoder through the noise of its own beginnings.
    network = LabelNetwork(model, probe).to(group.device)
    rows = {part: cells.rows(part) for part in (TRAIN, VALIDATION)}
    weights = torch.ones(len(cells.labels.classes))
    if config.balance_classes:
        n_cells = np.bincount(cells.codes[rows[TRAIN]], minlength=weights.numel())
        weights = torch.from_numpy(rows[TRAIN].size / (weights.numel() * n_cells)).float()
    tokenised = model.tokeniser(cells.counts)
    streams = {
        part: LabelStream(
            tokenised, cells.codes, own, weights, token_budget=config.token_budget, seed=config.seed
        )
        for part, own in rows.items()
    }  # fmt: skip

    def mode(module: nn.Module) -> None:
        module.train()
        training_mode(model.network, config)

    with adapted(model.network, config) if config.method == "lora" else nullcontext():
        fit = fit_with_patience(
            network, GivenObjectives({"labels": LabelObjective()}), streams[TRAIN], streams[VALIDATION], config,
            ranks=group, validation_inputs=rows[VALIDATION].size, training_mode=mode,
        )  # fmt: skip
    network.eval()
    weight, bias = (tensor.detach().float().cpu().numpy() for tensor in (network.head.weight, network.head.bias))
    return dataclasses.replace(probe, weight=weight, bias=bias), fit


def _embedding(model: Model[Any, Any], cells: _Cells, rows: NDArray[np.int64], pooling: str) -> NDArray[np.float32]:
    return embed_tokenised(model.network, model.tokeniser(cells.counts.take(rows)), method=pooling)


def _predict(model: Model[Any, Any], head: LabelHead, cells: _Cells, rows: NDArray[np.int64]) -> NDArray[np.integer]:
    classes: NDArray[np.integer] = head.probabilities(_embedding(model, cells, rows, head.pooling)).argmax(axis=1)
    return classes


def _baselines(
    model: Model[Any, Any],
    adata: anndata.AnnData,
    cells: _Cells,
    judged: NDArray[np.int64],
    config: FinetuneConfig,
    layer: str | None,
) -> dict[str, NDArray[np.integer]]:
    counts = adata.X if layer is None else adata.layers[layer]
    predictions = baseline_predictions(
        sparse.csr_matrix(counts), cells.codes, cells.rows(TRAIN), judged, regularisation=config.regularisation
    )
    device = next(model.network.parameters()).device
    untrained = type(model)(model.config, model.vocabulary, seed=config.seed).to(device)
    predictions["probe of random weights"] = _predict(untrained, _probe(untrained, cells, config), cells, judged)
    return predictions


def _judge(
    adata: anndata.AnnData,
    cells: _Cells,
    judged: NDArray[np.int64],
    predictions: Mapping[str, NDArray[np.integer]],
    n_replicates: int,
    seed: int,
) -> pd.DataFrame:
    tables = []
    first = 0
    for part in cells.labels.judged:
        rows = cells.rows(part)
        places = slice(first, first + rows.size)
        first += rows.size
        table = evaluate_predictions(
            cells.codes[rows],
            {name: predicted[places] for name, predicted in predictions.items()},
            len(cells.labels.classes),
            _tiles(adata, rows, seed),
            n_replicates=n_replicates,
            seed=seed,
        )
        table.insert(0, "part", part)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _tiles(adata: anndata.AnnData, rows: NDArray[np.int64], seed: int) -> Tiles:
    """Return tiles of tissue or, where places are not known, random groups of cells."""
    if "spatial" in adata.obsm:
        slides = slides_of_cells(adata.obs)
        slide = None if slides is None else slides[rows]
        return spatial_tiles(np.asarray(adata.obsm["spatial"], dtype=np.float64)[rows, :2], slide)
    n_groups = min(rows.size, _GROUPS)
    return Tiles(np.random.default_rng(seed).permutation(rows.size) % n_groups, n_groups, float("nan"))


def _card(
    record: Mapping[str, Any], labels: LabelledCells, fit: Fit, scores: pd.DataFrame, config: FinetuneConfig
) -> str:
    n_cells = ", ".join(f"{n:,} {part}" for part, n in record["n_cells"].items())
    facts = [
        *how_trained(config.method, record["parameters"], fit),
        f"Classes: {', '.join(labels.classes)}",
        f"Cells: {n_cells}; divided by {labels.divided_by}",
        "Baselines and scaling were fitted on the training cells alone",
    ]
    if labels.left_out:
        facts.append(f"Left out as too rare: {', '.join(labels.left_out)}")
    if config.method != "probe":
        facts.append(
            "The heads for masked genes, cell pairs and co-localised genes were not trained along, so they no longer "
            "fit the encoder"
        )
    keys = {"part": "part", "score": "by"}
    return card_section(f"Fine-tuned for labels: {labels.label}", facts, scores, keys, LABEL_MEASURES)

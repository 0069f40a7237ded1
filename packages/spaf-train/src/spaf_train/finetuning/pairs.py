"""Fine-tuning for pairs of neighbouring cells, such as those of another platform."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from spaf_data import Corpus
from spaf_model import EmbeddingSettings, InputError, SpatialFormer, TokenBatch, inference
from spaf_train._options import to_table
from spaf_train._record import fingerprint, run_record
from spaf_train.evaluation.cells import ReadCells, on_their_slides, read_tissue, readable_cells
from spaf_train.evaluation.evaluate import table_rows, verdicts
from spaf_train.evaluation.options import EvaluationOptions
from spaf_train.evaluation.pair_models import PairHeadEvaluation, evaluate_pair_models, judged_pairs
from spaf_train.evaluation.pairs import can_be_judged
from spaf_train.finetuning.adapters import adapted, training_mode
from spaf_train.finetuning.config import FinetuneConfig
from spaf_train.finetuning.pair_candidates import DECIDE, STOP, TRAIN, TrainingTissue, calibrated, compare, refit_apart
from spaf_train.finetuning.result import FinetuneResult, card_section, how_tuned, require_free, write_finetuned
from spaf_train.finetuning.training import Fit, fit_with_patience
from spaf_train.objectives import (
    ColocalizationConfig,
    MaskedGenesConfig,
    ObjectivesConfig,
    PairLabels,
    WeightingConfig,
)
from spaf_train.stream.contexts import with_known_contexts
from spaf_train.stream.loader import BatchStream
from spaf_train.stream.samplers import SamplingConfig
from spaf_train.trainer.distributed import Ranks, claimed, ranks
from spaf_train.trainer.module import encode
from spaf_train.trainer.reproducible import reproducible

if TYPE_CHECKING:
    from spaf_train.evaluation.calibrated_cosine import CalibratedCosine

PAIR_MEASURES = {"auroc": "AUROC", "auprc": "AUPRC"}
TUNED, BEFORE = "fine-tuned model", "model before"
_OBJECTIVES = ObjectivesConfig(
    masked_genes=MaskedGenesConfig(enabled=False),
    colocalization=ColocalizationConfig(enabled=False),
    weighting=WeightingConfig(method="fixed"),
)


def finetune_pairs(
    model_dir: str | Path,
    corpus: Corpus | str | Path,
    out: str | Path,
    *,
    config: FinetuneConfig = FinetuneConfig(),
    sampling: SamplingConfig = SamplingConfig(),
    evaluation: EvaluationOptions = EvaluationOptions(max_pairs=500),  # two models are judged on them
    context: Mapping[str, str | None] | None = None,
) -> FinetuneResult:
    """Teach a model which cells of a corpus are neighbours.

    The first candidate is the cosine of embeddings, seen from the centre of each slide and calibrated on pairs of
    training cells (``pairs.json``, see `predict_pairs`). ``probe`` fits the model's own pair head, ``lora`` and
    ``full`` train a model that reads two cells as one; what they give is kept only if it beats the cosine on training
    tissue that was held out for the question. Such an encoder was trained on the training tissue that was not held out.

    Writes a model directory, ``finetune.json`` and a card with what was done. Nothing is written before the end. Beside
    the result stand the model it began with and the baselines of `judge_cell_pairs`, on the validation split.

    Parameters
    ----------
    model_dir
        Model to begin with.
    corpus
        The data, or its folder, with the splits train and validation. Its genes may be others than the model's as long
        as enough are the same (`Vocabulary.match`).
    out
        Folder to make.
    config
        Method and numbers.
    sampling
        Which pairs are drawn; `token_budget` is that of `config`, and distances are those of the corpus where None.
    evaluation
        On how much the result is judged.
    context
        Tissue, condition, species or assay in place of those of the slides. A name that the model does not know
        is read as unknown where its vocabulary has that.

    Raises
    ------
    InputError
        If `out` holds something, a split is missing, genes or contexts do not fit the model, or the encoder of a model
        that reads the two cells of a pair apart is to be trained.
    TrainingDivergedError
        If a loss or a gradient is not finite.

    Examples
    --------
    ::

        from spaf_train import FinetuneConfig, finetune_pairs

        result = finetune_pairs("published-v2", "merscope/corpus", "models/merscope", context={"assay": "Merfish"})
        result.scores
    """
    started = time.perf_counter()
    out = Path(out)
    config.check_task("pairs")
    require_free(out)
    source = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
    with (
        ranks(config.device) as group,
        claimed(out, "spaf-train finetune", group),
        reproducible(group.device, config.threads),
    ):
        if group.world_size > 1:
            raise InputError("Fine-tuning runs in one process; start it without torchrun.")
        model = SpatialFormer.from_pretrained(model_dir, device=group.device)
        is_joint = model.config.pair_input == "joint"
        if not is_joint and config.method != "probe":
            raise InputError(
                f"{model_dir} reads the two cells of a pair apart; its encoder can be trained on pairs by contrast "
                "alone (spaf-train pretrain starter). Method probe fits its head."
            )
        sampling = sampling.following(source.distances)
        evaluation = evaluation.following(source.distances)
        before = SpatialFormer.from_pretrained(model_dir, device=group.device)
        data = with_known_contexts(source, model.vocabulary, context or {})
        cells = _judged_cells(data, model, evaluation)
        fitted = read_tissue(data, "train", max_cells=evaluation.max_fitted_cells, seed=evaluation.seed)
        tissue = TrainingTissue.of(fitted, data, model, evaluation)
        head, fit, decision, decided = _choose(model, before, data, tissue, config, sampling, context or {}, group)
        model.network.eval()
        heads = {} if head is None else {TUNED: head}
        judged = evaluate_pair_models(
            {TUNED: model, BEFORE: before}, cells, fitted, evaluation, data.distances, heads=heads
        )
        assert judged is not None, "looked at before"
        parameters = {
            "model": str(model_dir),
            "data": str(source.path),
            "context": {kind: name for kind, name in (context or {}).items() if name is not None},
            **dataclasses.asdict(config),
            "sampling": to_table(sampling),
            "evaluation": dataclasses.asdict(evaluation),
        }
        record = run_record(
            "spaf-train finetune --task pairs", parameters, started=started, packages=("scikit-learn", "peft")
        )
        result = judged.evaluation
        record |= {
            "corpus": fingerprint(source),
            "kept": "cosine" if head is not None else config.method,
            "decision": decision,
            "decided_by": decided,
            "fit": dataclasses.asdict(fit),
            "scores": table_rows(result.scores),
            "differences": table_rows(result.differences.assign(verdict=verdicts(result.differences, result.tiles.n))),
            "operating_points": table_rows(judged.operating_points),
            "calibration": table_rows(judged.calibration),
        }
        model.card = f"{model.card.rstrip()}\n\n{_card(record, data, fit, judged, head)}"
        write_finetuned(out, model, record, more=None if head is None else head.save)
    differences = result.differences.assign(verdict=verdicts(result.differences, result.tiles.n))
    return FinetuneResult(out, fit, result.scores, record, differences)


def _choose(
    model: SpatialFormer,
    before: SpatialFormer,
    data: Corpus,
    tissue: TrainingTissue,
    config: FinetuneConfig,
    sampling: SamplingConfig,
    context: Mapping[str, str | None],
    group: Ranks,
) -> tuple[CalibratedCosine | None, Fit, str, dict[str, float]]:
    """Fit the candidates, and leave the model with the one that is kept; a head is returned where it is the cosine."""
    nothing, distances, seed = Fit(steps=0, best_step=0, best={}, history=[]), data.distances, config.seed
    every = calibrated(before, tissue, (TRAIN, STOP, DECIDE, "gap"), distances, seed)
    if every is None:
        raise InputError(f"The split 'train' of {data.path} has no neighbouring cells with others far enough away.")
    part = calibrated(before, tissue, (TRAIN,), distances, seed)
    if part is None or tissue.pairs is None:
        few = "The training tissue is too small to hold out a part that tells which pair head is best"
        return every, nothing, f"{few}, so the calibrated cosine of embeddings was taken.", {}
    if model.config.pair_input == "separate":
        fit = nothing
        refit_apart(model, tissue, (TRAIN,), distances, config)
    else:
        with TemporaryDirectory() as folder:
            inner = with_known_contexts(tissue.write(data, Path(folder) / "corpus"), model.vocabulary, context)
            fit = _fit_together(model, inner, config, sampling, group)
    found = compare(before, model, tissue, distances, seed)
    what = "refitted pair head" if config.method == "probe" else f"pair head and encoder trained by {config.method}"
    told = (
        f"on {len(tissue.pairs):,} pairs of training tissue that was held out to decide, AUROC {found.other:.3f} "
        f"against {found.cosine:.3f}"
    )
    numbers = {config.method: found.other, "cosine": found.cosine}
    if not found.better:
        model.network.load_state_dict(before.network.state_dict())
        kept = "so the calibrated cosine of embeddings is what was kept"
        return every, fit, f"The {what} did not beat the cosine of embeddings ({told}), {kept}.", numbers
    if model.config.pair_input == "separate":
        refit_apart(model, tissue, (TRAIN, STOP, DECIDE, "gap"), distances, config)
    return None, fit, f"The {what} beat the cosine of embeddings ({told}) and is what was kept.", numbers


def _fit_together(
    model: SpatialFormer, inner: Corpus, config: FinetuneConfig, sampling: SamplingConfig, group: Ranks
) -> Fit:
    """Fit a model that reads two cells as one sequence, on the training tissue that was not held out."""
    streams = {
        split: BatchStream(
            inner,
            model,
            dataclasses.replace(plain, input="pairs", batches_per_step=1, token_budget=config.token_budget),
            _OBJECTIVES,
            split=split,
            seed=config.seed,
        )
        for split, plain in (
            (TRAIN, sampling),
            (STOP, dataclasses.replace(sampling, thinning=0.0, panel_min=1.0, context_dropout=0.0, positives=1.0)),
        )
    }
    if config.method == "probe":
        _fit_probe(model, streams[TRAIN], config)
        return Fit(steps=0, best_step=0, best={}, history=[])
    if config.method == "lora":
        with adapted(model.network, config):
            model.network.pair_head.requires_grad_(True)
            return _train(model, streams, config, group)
    return _train(model, streams, config, group)


def _train(model: SpatialFormer, streams: Mapping[str, BatchStream], config: FinetuneConfig, group: Ranks) -> Fit:
    def mode(module: nn.Module) -> None:
        module.train()
        training_mode(model.network, config)

    return fit_with_patience(
        model.network, _OBJECTIVES, streams["train"], streams["validation"], config, ranks=group,
        validation_inputs=config.validation_inputs, training_mode=mode, best_metric=config.metric("pairs"),
    )  # fmt: skip


def _fit_probe(model: SpatialFormer, stream: BatchStream, config: FinetuneConfig) -> None:
    """Fit the pair head by logistic regression on the states of CLS, everything else unchanged.

    The head has no bias, so features are scaled and not centred, and the regression has no intercept.
    """
    states: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.int64]] = []
    with inference(model.network, EmbeddingSettings()) as (device, _):
        for batch in stream.one_epoch(max_inputs=config.probe_inputs):
            asked = cast("PairLabels", batch.targets["pairs"])
            read = batch.unmasked.to(device)
            hidden = encode(model.network, read)
            states.append(model.network.pool(hidden, cast("TokenBatch", read), "cls").double().cpu().numpy())
            labels.append(asked.labels.numpy())
    scaler = StandardScaler(with_mean=False)
    features = scaler.fit_transform(np.concatenate(states))
    regression = LogisticRegression(
        C=1.0 / (config.regularisation or 1.0), max_iter=5_000, fit_intercept=False, class_weight="balanced"
    ).fit(features, np.concatenate(labels))
    half = torch.from_numpy(regression.coef_[0] / scaler.scale_ / 2.0)
    with torch.no_grad():
        head = cast("nn.Linear", model.network.pair_head)
        head.weight.copy_(torch.stack([-half, half]))


def _judged_cells(corpus: Corpus, model: SpatialFormer, options: EvaluationOptions) -> ReadCells:
    """Return the cells to judge on; what cannot be trained or judged on is said before the work.

    Raises
    ------
    InputError
        If the split to train with has no neighbours, or the cells to judge on have none with negatives.
    """
    for split in ("train", options.split):
        if not any(ref.n_pairs for ref in corpus.block_refs(split)):
            raise InputError(f"The corpus {corpus.path} has no pair of neighbouring cells in its split {split!r}.")
    cells = readable_cells(corpus, options.split, model, options.max_cells, options.seed)
    cells = on_their_slides(cells, corpus, model)
    if not can_be_judged(judged_pairs(cells.cells, options, corpus.distances)):
        raise InputError(
            f"The split {options.split!r} of {corpus.path} has no neighbouring cells with others at "
            f"{corpus.distances.hard_min:g} um or more."
        )
    return cells


def _card(
    record: Mapping[str, Any], corpus: Corpus, fit: Fit, judged: PairHeadEvaluation, head: CalibratedCosine | None
) -> str:
    slides = corpus.slides
    assays = ", ".join(sorted({context["assay"] for context in slides.values()}))
    method = record["kept"]
    if head is not None:
        facts = [
            "The weights are unchanged. Pairs are told by the cosine of the embeddings of the two cells, each seen "
            f"from the centre of its slide, with slope {head.slope:.3f} and offset {head.offset:.3f} (`pairs.json`; "
            "`spaf_train.predict_pairs`)"
        ]
    else:
        facts = how_tuned(method, record["parameters"], fit)
    facts += [
        record["decision"].rstrip("."),
        f"Slides: {', '.join(slides)} (assay: {assays}; {len(corpus.genes)} genes)",
        f"Judged on {judged.evaluation.n_pairs:,} pairs of the split {record['parameters']['evaluation']['split']!r}; "
        "whatever learns of places was fitted on the training split alone",
    ]
    if method in ("full", "lora"):
        facts.append(
            "The heads for masked genes and co-localised genes were not trained along, so they no longer fit the "
            "encoder"
        )
    keys = {"radius": "radius (um)", "negatives": "against", "score": "by"}
    return card_section("Fine-tuned for pairs of neighbours", facts, judged.evaluation.scores, keys, PAIR_MEASURES)

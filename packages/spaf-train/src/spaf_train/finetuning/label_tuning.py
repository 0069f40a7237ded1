"""Training an encoder for labels, and whether that is better than a probe of it as it is.

Both questions, when to stop and what to keep, are put to training cells that are held out for them: a third of each
slide at one end, one half of its tiles for either. Cells that are judged have no part in it.
"""

from __future__ import annotations

import copy
import dataclasses
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spaf_model import InputError
from spaf_train.evaluation.probing import Probe, is_clearly_better, macro_f1
from spaf_train.finetuning.adapters import adapted, training_mode
from spaf_train.finetuning.label_probe import BOTH, ChosenProbe, LabelInputs
from spaf_train.finetuning.label_training import LabelNetwork, LabelObjective, LabelStream
from spaf_train.finetuning.labelled_cells import TRAIN
from spaf_train.finetuning.training import Fit, fit_with_patience
from spaf_train.objectives import GivenObjectives

if TYPE_CHECKING:
    from spaf_model import Model, TokenisedCells
    from spaf_train.finetuning.config import FinetuneConfig
    from spaf_train.trainer.distributed import Ranks

_LEAST = 10  # cells to stop by, and as many to decide by


@dataclasses.dataclass(frozen=True, eq=False)
class Tuning:
    """What became of training an encoder.

    Attributes
    ----------
    fit
        Of the trial on the training cells that were not held out.
    probe
        The head of the trained encoder; None where the probe of the encoder as given is kept.
    decision
        Why, in a sentence.
    macro_f1
        Of the trained encoder and of the probe on the cells that decided; empty where it was not tried.
    """

    fit: Fit
    probe: Probe | None
    decision: str
    macro_f1: dict[str, float]


def require_trainable(model: Model[Any, Any], config: FinetuneConfig) -> None:
    """Refuse to train what cannot be.

    Raises
    ------
    InputError
        If the family has no network that is trained by batches, or none that adapters go into.
    """
    if config.method == "probe":
        return
    what = {"full": "trained", "lora": "adapted"}[config.method]
    if model.reads_whole_slides or (config.method == "lora" and not model.network.adapted_layers):
        raise InputError(
            f"A model of the family {model.family!r} cannot be {what} by batches of labelled cells (method "
            f"{config.method}); method probe fits a head on what it gives."
        )


def tune(
    model: Model[Any, Any], inputs: LabelInputs, chosen: ChosenProbe, config: FinetuneConfig, group: Ranks
) -> Tuning:
    """Train an encoder with a head where that beats the probe; the network of the model is changed only then.

    A copy is trained on two thirds of the training cells. If it beats the chosen probe, fitted on the same cells, by
    more than a standard error on those that decide, the network is trained on all of them for as many steps as were
    best.
    """
    others, stopping, deciding = _parts(inputs, config.seed)
    nothing = Fit(steps=0, best_step=0, best={}, history=[])
    if min(stopping.size, deciding.size) < _LEAST or np.unique(inputs.codes[others]).size < 2:
        few = f"{inputs.rows(TRAIN).size} training cells are too few to hold out some that tell whether training helps"
        return Tuning(nothing, None, f"{few}, so the encoder is as it was and the head is a probe of it.", {})
    trial = LabelNetwork(
        copy.deepcopy(model.network), chosen.fit(inputs, others, BOTH), inputs.pooling
    ).to(group.device)  # fmt: skip
    tokenised = model.tokeniser(inputs.cells)
    balanced = chosen.choices[BOTH].balanced
    fit = _train(trial, tokenised, inputs, others, stopping, balanced, config, group)
    told = _stream(tokenised, inputs, deciding, balanced, config)
    rows, tuned = trial.predict(told.one_epoch(), group.device)
    labels = inputs.codes[rows]
    probed = chosen.fit(inputs, others).predict(inputs.blocks(chosen.reads), rows)
    found: dict[str, float] = {
        config.method: macro_f1(labels, tuned, inputs.n_classes),
        "probe": macro_f1(labels, probed, inputs.n_classes),
    }
    better = fit.best_step > 0 and is_clearly_better(
        labels, tuned, probed, inputs.tiles_of(rows), seed=config.seed
    )  # fmt: skip
    told_by = (
        f"on {rows.size} training cells that were held out to decide, macro-F1 {found[config.method]:.3f} against "
        f"{found['probe']:.3f}"
    )
    if not better:
        kept = f"The encoder trained by {config.method} did not beat the probe of it as given"
        return Tuning(fit, None, f"{kept} ({told_by}), so that probe is what was kept.", found)
    every = inputs.rows(TRAIN)
    network = LabelNetwork(model.network, chosen.fit(inputs, every, BOTH), inputs.pooling).to(group.device)
    again = dataclasses.replace(config, steps=fit.best_step, validate_every=fit.best_step, patience=1_000_000)
    _train(network, tokenised, inputs, every, stopping, balanced, again, group, best_metric="last")
    decision = f"The encoder trained by {config.method} beat the probe of it as given ({told_by}) and is what was kept."
    return Tuning(fit, network.probe(), decision, found)


def _parts(
    inputs: LabelInputs, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Return the training cells to train on, to stop by and to decide by."""
    rows = inputs.rows(TRAIN)
    held = inputs.folds == inputs.folds.max()
    tiles = inputs.tiles_of(rows[held])
    decides = (np.random.default_rng(seed).permutation(tiles.n) % 2 == 1)[tiles.code]
    return rows[~held], rows[held][~decides], rows[held][decides]


def _train(
    network: LabelNetwork,
    tokenised: TokenisedCells[Any],
    inputs: LabelInputs,
    rows: NDArray[np.int64],
    stopping: NDArray[np.int64],
    balanced: bool,
    config: FinetuneConfig,
    group: Ranks,
    *,
    best_metric: str | None = None,
) -> Fit:
    def mode(module: nn.Module) -> None:
        module.train()
        training_mode(network.network, config)

    with adapted(network.network, config) if config.method == "lora" else nullcontext():
        fit = fit_with_patience(
            network, GivenObjectives({"labels": LabelObjective()}),
            _stream(tokenised, inputs, rows, balanced, config), _stream(tokenised, inputs, stopping, balanced, config),
            config, ranks=group, validation_inputs=stopping.size, training_mode=mode,
            best_metric=best_metric or config.metric("labels"),
        )  # fmt: skip
    network.eval()
    return fit


def _stream(
    tokenised: TokenisedCells[Any], inputs: LabelInputs, rows: NDArray[np.int64], balanced: bool, config: FinetuneConfig
) -> LabelStream:
    weights = torch.ones(inputs.n_classes)
    if balanced:
        n_cells = np.bincount(inputs.codes[inputs.rows(TRAIN)], minlength=inputs.n_classes)
        weights = torch.from_numpy(n_cells.sum() / (inputs.n_classes * np.maximum(n_cells, 1))).float()
    return LabelStream(
        tokenised, inputs.log_counts, inputs.codes, rows, weights, token_budget=config.token_budget, seed=config.seed
    )

"""Contrastive pre-training: cells are read alone, and neighbours are to be alike."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spaf_data import Corpus, claim
from spaf_model import InputError, SpatialFormer
from spaf_train._options import flatten, to_table
from spaf_train._record import fingerprint, run_record, sweep_partial, write_json, write_text
from spaf_train.pretraining.gene_table import set_gene_table
from spaf_train.pretraining.vocabulary import vocabulary_from_corpus
from spaf_train.recipes.config import ContrastConfig
from spaf_train.recipes.losses import ContrastLosses
from spaf_train.recipes.patches import Cells, Patches
from spaf_train.recipes.towers import TowerStates, standardised_expression, tower_states, train_tower
from spaf_train.trainer.checkpoint import Checkpoints, state_to_resume
from spaf_train.trainer.loop import TrainingDivergedError
from spaf_train.trainer.optim import learning_rate, make_optimizer
from spaf_train.trainer.progress import TrainingProgress
from spaf_train.trainer.reproducible import reproducible
from spaf_train.trainer.running_statistics import RunningStatistics
from spaf_train.trainer.signals import StopRequest, stop_request

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ContrastResult:
    """What became of a run.

    Attributes
    ----------
    out
        Folder of the run.
    finished
        False if the run was asked to stop; it saved its state and can be continued.
    step
        Last step.
    model
        With the weights of that step.
    not_learnt
        A sentence for each thing of which the model has learnt nothing; empty where the run was stopped.
    """

    out: Path
    finished: bool
    step: int
    model: SpatialFormer
    not_learnt: dict[str, str] = dataclasses.field(default_factory=dict)


def train_contrast(
    config: ContrastConfig, corpus: str | Path, out: str | Path, *, resume: bool = False
) -> ContrastResult:
    """Pre-train a SpatialFormer by contrast of neighbours.

    Each step takes some patches of tissue, encodes every cell once, and compares all pairs of them: 100,000 pairs for
    the price of some hundred cells. Hidden genes and, where the slide has them, co-localised genes are asked of the
    same forward pass. Where the configuration has towers, those are trained first, and the model learns to be like them
    too. Writes ``config.json``, ``metrics.csv``, ``checkpoints/`` and, last, ``model/`` (the weights after the last
    step, a model directory) and ``run.json`` into `out`. On one process.

    Parameters
    ----------
    config
        See `read_contrast_config`.
    corpus
        Folder of a corpus with a training split; a validation split is looked at where there is one, and nothing is
        chosen by it.
    out
        Folder of the run.
    resume
        Continue from the last checkpoint in `out`, to the same bits as a run that was not interrupted; without a
        checkpoint the run begins.

    Raises
    ------
    InputError
        If the corpus or an option cannot be used, `out` holds a run and `resume` is False, the run in `out` has another
        configuration or other data, or another process writes to `out`.
    TrainingDivergedError
        If a loss or a gradient is not finite.
    """
    out = Path(out)
    with claim(out, "spaf-train contrast"):
        return _train(config, corpus, out, resume=resume)


def _train(config: ContrastConfig, corpus: str | Path, out: Path, *, resume: bool) -> ContrastResult:
    """Train in a folder that is claimed."""
    began = time.perf_counter()
    checkpoints = Checkpoints(out / "checkpoints", keep=config.run.keep)
    if not resume and (checkpoints.latest() or (out / "run.json").exists()):
        raise InputError(f"{out} already holds a run; continue it with --resume or choose another folder.")
    source = Corpus(corpus)
    config = config.following(source.distances)
    identity: dict[str, Any] = {"config": _decisive(config), "corpus": fingerprint(source)}
    state = state_to_resume(checkpoints, identity, out) if resume else None
    dropout = config.patches.context_dropout
    vocabulary = vocabulary_from_corpus(source, config.vocabulary, context_dropout=dropout)
    model = SpatialFormer(config.model, vocabulary, seed=config.seed)
    # A run that continues has its table among its weights, and what was read for it in its identity.
    gene_table = set_gene_table(model, config.gene_embeddings, read=state is None)
    identity["gene_embeddings"] = gene_table if state is None else state["identity"]["gene_embeddings"]
    train = Patches(source, vocabulary, split="train", config=config.patches, max_genes=config.model.max_genes)
    bounds = config.neighbours.distances()
    if not train.has_neighbours(bounds.positive):
        raise InputError(
            f"No two training cells of {source.path} lie within {bounds.positive:g} um (neighbours.radius) of each "
            "other, so there are no neighbours to learn from; the radius of the corpus is "
            f"{source.distances.positive:g} um (spaf-data build --radius)."
        )
    looked_at: list[Cells] = []
    if "validation" in source.splits:
        plain = dataclasses.replace(config.patches, thinning=0.0, context_dropout=0.0)
        held = Patches(source, vocabulary, split="validation", config=plain, max_genes=config.model.max_genes)
        looked_at = [held.draw(np.random.default_rng([config.seed, 1, n])) for n in range(config.run.validation_steps)]
    out.mkdir(parents=True, exist_ok=True)
    checkpoints.sweep()
    sweep_partial(out / "model")
    write_json(out / "config.json", to_table(config))
    with reproducible(torch.device("cpu"), config.run.threads), stop_request() as stop:
        towers = None if state is not None else _teach(train, config, stop)
        if stop.received:
            return ContrastResult(out, False, 0, model)
        trainer = _Trainer(model, config, train, looked_at, towers, checkpoints, identity, out / "metrics.csv")
        if state is not None:
            trainer.load_state_dict(state)
        finished = trainer.fit(stop)
        trainer.statistics.end()
    model.network.eval()
    not_learnt: dict[str, str] = {}
    if finished:
        not_learnt = trainer.not_learnt()
        model.card = _card(source, config, trainer.step, not_learnt)
        model.save_pretrained(out / "model")
        record = run_record("spaf-train contrast", {"config": to_table(config)}, started=began)
        record |= {
            "gene_embeddings": identity["gene_embeddings"],
            "n_cells": train.n_cells,
            "n_parameters": model.n_parameters,
            "last": trainer.rows[-1],
            "not_learnt": not_learnt,
        }
        # Of all processes that the run took, not of the last one.
        write_json(out / "run.json", record | {"seconds": max(record["seconds"], trainer.seconds)})
    return ContrastResult(out, finished, trainer.step, model, not_learnt)


def _card(corpus: Corpus, config: ContrastConfig, step: int, not_learnt: dict[str, str]) -> str:
    return "\n".join(
        [
            "# SpatialFormer, by contrast of neighbours",
            "",
            f"- Slides: {', '.join(corpus.slides)} ({len(corpus.genes)} genes)",
            f"- {step} steps, the weights of the last; neighbours within {config.neighbours.radius:g} um; seed "
            f"{config.seed}; the whole configuration is in `config.json` of the run",
            "- Licence: that of the data; training adds no terms of its own.",
            *(f"- {sentence}" for sentence in not_learnt.values()),
            "",
        ]
    )


def _decisive(config: ContrastConfig) -> dict[str, Any]:
    """Return the options that a run must keep when it is continued."""
    options = flatten(to_table(config))
    # Runs of before had no bound of its own for easy negatives: they began where hard ones ended.
    if options["neighbours.easy_min"] == options["neighbours.hard_max"]:
        del options["neighbours.easy_min"]
    return options


def _teach(train: Patches, config: ContrastConfig, stop: StopRequest) -> TowerStates | None:
    if not config.towers.towers:
        return None
    expression = standardised_expression(train)
    towers = []
    for number in range(config.towers.towers):
        seed = config.seed * 1_000_003 + number
        towers.append(train_tower(train, expression, config.towers, config.neighbours, seed=seed, stop=stop))
        if stop.received:
            return None
    return tower_states(towers, expression, config.model.pair_rank)


class _Trainer:
    """The run after the towers: its state is what a checkpoint holds."""

    def __init__(
        self,
        model: SpatialFormer,
        config: ContrastConfig,
        train: Patches,
        looked_at: list[Cells],
        towers: TowerStates | None,
        checkpoints: Checkpoints,
        identity: dict[str, Any],
        log_path: Path,
    ) -> None:
        self.network = model.network
        self.config = config
        self.train = train
        self.looked_at = looked_at
        self.losses = ContrastLosses(model, config, towers)
        self.optimizer = make_optimizer(model.network, config.optimizer)
        self.statistics = RunningStatistics(model.network)
        self.checkpoints = checkpoints
        self.identity = identity
        self.log_path = log_path
        self.step = 0
        self.seconds = 0.0
        self.rows: list[dict[str, float]] = []
        self.n_neighbours = 0  # pairs of neighbours that steps had
        self._n_tokens = 0
        self._sums: dict[str, float] = {}  # of the losses since the last row
        self._counts: dict[str, int] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on; draws and dropout depend on seed and step alone."""
        towers = self.losses.towers
        return {
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "towers": None if towers is None else {"states": towers.states, "signs": towers.signs},
            "rows": self.rows,
            "n_neighbours": self.n_neighbours,
            "n_tokens": self._n_tokens,
            "sums": self._sums,
            "counts": self._counts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was saved."""
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.n_neighbours = state.get("n_neighbours", 1)
        self._n_tokens, self._sums, self._counts = state["n_tokens"], state["sums"], state["counts"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["towers"] is not None:
            self.losses.towers = TowerStates(**state["towers"])
        logger.info("continuing after step %d", self.step)

    def fit(self, stop: StopRequest) -> bool:
        """Train to the last step; False if the run was asked to stop and saved its state."""
        run = self.config.run
        began = time.perf_counter() - self.seconds
        self.network.train()
        with TrainingProgress(run.steps, completed=self.step, title="contrast") as progress:
            while self.step < run.steps:
                total, rate = self._take_step()
                self.seconds = time.perf_counter() - began
                progress.update(self.step, f"loss {total:.3f}  {self._n_tokens / self.seconds:,.0f} tokens/s")
                last = self.step == run.steps
                if last or self.step % run.log_every == 0:
                    self._log(rate, look=last or self.step % run.validate_every == 0)
                if last or stop.received or self.step % run.checkpoint_every == 0:
                    self.checkpoints.save(self.state_dict(), step=self.step, best_step=None)
                if stop.received and not last:
                    return False
        return True

    def not_learnt(self) -> dict[str, str]:
        """Return a sentence for each kind of pairs of which the model has learnt nothing, by the last validation.

        Without a validation split it cannot be told, unless no step had neighbours at all.
        """
        radius = self.config.neighbours.radius
        if not self.n_neighbours:
            within = f"within {radius:g} um of each other (neighbours.radius)"
            return {"neighbours": f"Nothing was learnt of neighbours: no two cells of a step lie {within}."}
        return self.losses.not_learnt(self.looked_at) if self.looked_at else {}

    def _take_step(self) -> tuple[float, float]:
        """Take one step; return the total loss and the learning rate."""
        config, number = self.config, self.step
        seed = config.seed * 1_000_003 + number
        torch.manual_seed(seed)
        cells = self.train.draw(np.random.default_rng([config.seed, 0, number]))
        losses = self.losses.losses(cells, torch.Generator().manual_seed(seed))
        total = self.losses.total(losses, number / config.run.steps)
        if not math.isfinite(float(total.detach())):
            bad = [name for name, loss in losses.items() if not math.isfinite(float(loss.detach()))]
            raise TrainingDivergedError(self._not_finite(f"the loss {', '.join(bad)}"))
        rate = learning_rate(number, config.run.steps, config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        norm = float(nn.utils.clip_grad_norm_(trained, config.optimizer.clip_norm or math.inf))
        if not math.isfinite(norm):
            raise TrainingDivergedError(self._not_finite("the gradient"))
        self.optimizer.step()
        self.statistics.move()
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(loss.detach())
            self._counts[name] = self._counts.get(name, 0) + 1
        self.n_neighbours += self.losses.n_neighbours(cells)
        self._n_tokens += int(cells.ranked.n_genes.sum()) + 6 * len(cells)
        self.step += 1
        return float(total.detach()), rate

    def _not_finite(self, what: str) -> str:
        kept = self.checkpoints.latest()
        where = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        return (
            f"Step {self.step + 1}: {what} is not finite; {where}. A lower optimizer.learning_rate or a longer "
            "optimizer.warmup_steps may help."
        )

    def _log(self, rate: float, *, look: bool) -> None:
        row = {"step": float(self.step), "seconds": self.seconds, "learning_rate": rate}
        row |= {"tokens_per_second": self._n_tokens / self.seconds}
        row |= {name: value / self._counts[name] for name, value in self._sums.items()}
        if look and self.looked_at:
            row |= self.losses.validate(self.looked_at)
        self.rows.append(row)
        self._sums, self._counts = {}, {}
        logger.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        columns = list(dict.fromkeys(name for each in self.rows for name in each))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.log_path, text.getvalue())

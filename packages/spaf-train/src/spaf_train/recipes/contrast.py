"""Contrastive pre-training: cells are read alone, and neighbours are to be alike."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import math
import time
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spaf_data import Corpus
from spaf_model import (
    CONTEXT_KINDS,
    InputError,
    SpatialFormer,
    SpatialFormerConfig,
    TokenBatch,
    embed_cells,
    token_budget_batches,
)
from spaf_model.spatialformer.heads import SeparatePairs
from spaf_train._checks import require, require_at_least
from spaf_train._options import from_table, to_table
from spaf_train._record import run_record, write_json, write_text
from spaf_train.config import read_table, shipped_in
from spaf_train.loop import TrainingDivergedError
from spaf_train.metrics import auroc
from spaf_train.objectives import (
    ColocalizationConfig,
    MaskedGenesConfig,
    colocalized_genes,
    focal_loss,
    mask_genes,
    masked_genes_loss,
)
from spaf_train.optim import OptimizerConfig, learning_rate, make_optimizer
from spaf_train.progress import TrainingProgress
from spaf_train.recipes.neighbours import NeighboursConfig, neighbour_losses, pair_kinds
from spaf_train.recipes.patches import Cells, PatchConfig, Patches
from spaf_train.recipes.towers import (
    TowersConfig,
    TowerStates,
    standardised_expression,
    tower_states,
    train_tower,
    unlike,
)
from spaf_train.reproducible import reproducible
from spaf_train.vocabulary import VocabularyConfig, vocabulary_from_corpus

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastRunConfig:
    """How long a run is, and how often it looks at the validation split."""

    steps: int = 1000  # optimizer steps
    log_every: int = 20  # steps between two training rows of metrics.csv
    validate_every: int = 200  # steps between two validations
    validation_steps: int = 20  # steps' worth of cells of the validation split that are looked at, the same each time
    threads: int = 1  # of torch on the CPU; equal results need an equal number

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "validate_every", "validation_steps", "threads"):
            require_at_least(name, getattr(self, name), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Everything that a contrastive run is told, apart from where its data is."""

    seed: int = 0  # of the weights, the patches, the masks and dropout
    model: SpatialFormerConfig = dataclasses.field(default_factory=lambda: SpatialFormerConfig(pair_input="separate"))
    vocabulary: VocabularyConfig = VocabularyConfig()
    patches: PatchConfig = PatchConfig()
    neighbours: NeighboursConfig = NeighboursConfig()
    towers: TowersConfig = TowersConfig()
    masked_genes: MaskedGenesConfig = MaskedGenesConfig()
    colocalization: ColocalizationConfig = ColocalizationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: ContrastRunConfig = ContrastRunConfig()

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed must be at least 0, not {self.seed}.")
        require(self.model.pair_input == "separate", "model.pair_input must be separate: each cell is read alone.")


class _Step:
    """The losses of the cells of one step."""

    def __init__(self, model: SpatialFormer, config: ContrastConfig, towers: TowerStates | None = None) -> None:
        self.network = model.network
        self.vocabulary = model.vocabulary
        self.config = config
        self.towers = towers
        assert isinstance(self.network.pair_head, SeparatePairs)
        self.head: SeparatePairs = self.network.pair_head
        if towers is not None:
            # The similarity of the towers is a signed inner product, so that is where the head begins.
            with torch.no_grad():
                self.head.weight.zero_()[: towers.signs.numel()] = towers.signs

    def losses(self, cells: Cells, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of each term, unweighted, for the cells of a step."""
        losses: dict[str, Tensor] = {}
        asked: dict[str, list[tuple[Tensor, float]]] = {"masked_genes": [], "found": [], "colocalization": []}
        states, order = [], []
        for rows in self._batches(cells):
            unmasked = TokenBatch.from_cells(cells.ranked, cells.context, rows, self.vocabulary)
            masked = unmasked
            if self.config.masked_genes.enabled:
                masked, genes = mask_genes(unmasked, self.vocabulary, self.config.masked_genes, generator)
            hidden = self.network.encode(masked)
            states.append(hidden[:, 0])
            order.append(rows)
            if self.config.masked_genes.enabled:
                chosen = hidden.flatten(0, 1).index_select(0, genes.positions)
                loss, found = masked_genes_loss(self.network.masked_gene_logits(chosen), genes.targets)
                asked["masked_genes"].append((loss, genes.weight))
                asked["found"].append((found, genes.weight))
            if self.config.colocalization.enabled and cells.knows_edges:
                segments = np.stack([rows, np.full(rows.size, -1)], axis=1)
                edges = colocalized_genes(unmasked, segments, cells.indptr, cells.edges, self.vocabulary)
                logits = self.network.colocalization_logits(hidden, masked).flatten().index_select(0, edges.positions)
                focal = self.config.colocalization
                loss = focal_loss(logits, edges.targets, alpha=focal.alpha, gamma=focal.gamma)
                asked["colocalization"].append((loss, edges.weight))
        for name, parts in asked.items():
            if parts:
                losses[name] = torch.stack([loss for loss, _ in parts]).sum() / max(sum(n for _, n in parts), 1.0)
        place = torch.from_numpy(np.argsort(np.concatenate(order)))
        states_ND = torch.cat(states).index_select(0, place)
        kinds = pair_kinds(cells.coordinates, self.config.neighbours)
        similarity = self.head.similarity(states_ND, states_ND)
        losses |= neighbour_losses(similarity, self.head.calibrate(similarity), kinds)
        if self.towers is not None:
            target = self.towers.states[torch.from_numpy(cells.index)]
            losses["towers"] = unlike(self.head.project(states_ND)[:, : target.shape[1]], target)
        return losses

    def _batches(self, cells: Cells) -> list[NDArray[np.int64]]:
        """Return the cells in batches that stay in the caches of a processor, those of similar length together."""
        lengths = cells.ranked.n_genes + len(CONTEXT_KINDS) + 2
        return token_budget_batches(lengths, self.config.patches.token_budget)

    def total(self, losses: dict[str, Tensor], done: float) -> Tensor:
        """Return the weighted sum of the losses at a point of the run, from 0 (start) to 1 (end)."""
        fade = 1.0 - done if self.config.colocalization.ramp_down else 1.0
        weights = {
            **self.config.neighbours.weights(),
            "towers": self.config.towers.weight,
            "masked_genes": self.config.masked_genes.weight,
            "colocalization": self.config.colocalization.weight * fade,
        }
        return torch.stack([weights[name] * loss for name, loss in losses.items() if name in weights]).sum()

    @torch.no_grad()
    def validate(self, steps: list[Cells]) -> dict[str, float]:
        """Return the AUROC of neighbours against easy and hard negatives, over the pairs of some steps."""
        self.network.eval()
        scores: dict[str, list[Tensor]] = {"neighbours": [], "hard": [], "easy": []}
        for cells in steps:
            states = torch.from_numpy(embed_cells(self.network, self.vocabulary, cells.ranked, cells.context))
            similarity = self.head.similarity(states, states)
            kinds = pair_kinds(cells.coordinates, self.config.neighbours)
            for kind in scores:
                scores[kind].append(similarity[getattr(kinds, kind).triu()])
        self.network.train()
        values = {kind: torch.cat(pieces).numpy() for kind, pieces in scores.items()}
        return {
            f"auroc_{kind}": auroc(
                np.concatenate([values["neighbours"], values[kind]]),
                np.repeat([1, 0], [values["neighbours"].size, values[kind].size]),
            )
            for kind in ("easy", "hard")
        }


def contrast_presets() -> list[str]:
    """Return the names of the contrastive configurations that the package ships."""
    return shipped_in(resources.files("spaf_train.recipes"))


def read_contrast_config(source: str | Path) -> ContrastConfig:
    """Read the configuration of a contrastive run: a TOML file, or the name of one that the package ships.

    Raises
    ------
    InputError
        If there is no such file, it is not TOML, or an option is unknown or out of range.
    """
    return from_table(ContrastConfig, read_table(source, resources.files("spaf_train.recipes")))


def train_contrast(config: ContrastConfig, corpus: str | Path, out: str | Path) -> SpatialFormer:
    """Pre-train a SpatialFormer by contrast of neighbours.

    Each step takes some patches of tissue, encodes every cell once, and compares all pairs of them: 100,000 pairs for
    the price of some hundred cells. Hidden genes and, where the slide has them, co-localised genes are asked of the
    same forward pass. Writes ``config.json``, ``metrics.csv`` and, last, ``model/`` (the weights after the last step, a
    model directory) and ``run.json`` into `out`. On one process; a run that is interrupted begins anew.

    Parameters
    ----------
    config
        See `read_contrast_config`.
    corpus
        Folder of a corpus with a training split; a validation split is looked at where there is one, and nothing is
        chosen by it.
    out
        Folder of the run, which must not hold one.

    Returns
    -------
    SpatialFormer
        The trained model.

    Raises
    ------
    InputError
        If the corpus or an option cannot be used, or `out` holds a run.
    TrainingDivergedError
        If a loss is not finite.
    """
    out = Path(out)
    if (out / "run.json").exists():
        raise InputError(f"{out} already holds a run; choose another folder.")
    source = Corpus(corpus)
    vocabulary = vocabulary_from_corpus(source, config.vocabulary)
    model = SpatialFormer(config.model, vocabulary, seed=config.seed)
    train = Patches(source, vocabulary, split="train", config=config.patches, max_genes=config.model.max_genes)
    looked_at: list[Cells] = []
    if "validation" in source.splits:
        plain = dataclasses.replace(config.patches, thinning=0.0, context_dropout=0.0)
        held = Patches(source, vocabulary, split="validation", config=plain, max_genes=config.model.max_genes)
        looked_at = [held.draw(np.random.default_rng([config.seed, 1, n])) for n in range(config.run.validation_steps)]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", to_table(config))
    began = time.perf_counter()
    with reproducible(torch.device("cpu"), config.run.threads):
        rows = _fit(model, config, train, looked_at)
    _write_rows(out / "metrics.csv", rows)
    model.network.eval()
    model.save_pretrained(out / "model")
    record = run_record("spaf-train contrast", {"config": to_table(config)}, started=began)
    more = {"n_cells": train.n_cells, "n_parameters": model.n_parameters, "last": rows[-1]}
    write_json(out / "run.json", record | more)
    return model


def _teach(train: Patches, config: ContrastConfig) -> TowerStates | None:
    if not config.towers.towers:
        return None
    expression = standardised_expression(train)
    towers = [
        train_tower(train, expression, config.towers, config.neighbours, seed=config.seed * 1_000_003 + number)
        for number in range(config.towers.towers)
    ]
    return tower_states(towers, expression, config.model.pair_rank)


def _fit(
    model: SpatialFormer, config: ContrastConfig, train: Patches, looked_at: list[Cells]
) -> list[dict[str, float]]:
    step = _Step(model, config, _teach(train, config))
    parameters = [parameter for parameter in model.network.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(model.network, config.optimizer)
    rows: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    began = time.perf_counter()
    n_tokens = 0
    model.network.train()
    with TrainingProgress(config.run.steps) as progress:
        for number in range(config.run.steps):
            torch.manual_seed(config.seed * 1_000_003 + number)
            cells = train.draw(np.random.default_rng([config.seed, 0, number]))
            losses = step.losses(cells, torch.Generator().manual_seed(config.seed * 1_000_003 + number))
            total = step.total(losses, number / config.run.steps)
            if not math.isfinite(float(total.detach())):
                bad = [name for name, loss in losses.items() if not math.isfinite(float(loss.detach()))]
                raise TrainingDivergedError(f"Step {number + 1}: the loss {', '.join(bad)} is not finite.")
            rate = learning_rate(number, config.run.steps, config.optimizer)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm or math.inf)
            optimizer.step()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach())
                counts[name] = counts.get(name, 0) + 1
            n_tokens += int(cells.ranked.n_genes.sum()) + 6 * len(cells)
            seconds = time.perf_counter() - began
            progress.update(number + 1, f"loss {float(total.detach()):.3f}  {n_tokens / seconds:,.0f} tokens/s")
            last = number + 1 == config.run.steps
            if last or (number + 1) % config.run.log_every == 0:
                row = {"step": number + 1.0, "seconds": seconds, "learning_rate": rate}
                row |= {"tokens_per_second": n_tokens / seconds}
                row |= {name: value / counts[name] for name, value in sums.items()}
                if looked_at and (last or (number + 1) % config.run.validate_every == 0):
                    row |= step.validate(looked_at)
                rows.append(row)
                sums, counts = {}, {}
                logger.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    return rows


def _write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())

"""The losses of a contrastive step, and what the validation split says of the model."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaf_model import CONTEXT_KINDS, SpatialFormer, TokenBatch, embed_cells, token_budget_batches
from spaf_model.spatialformer.heads import SeparatePairs
from spaf_train.objectives import colocalized_genes, focal_loss, mask_genes, masked_genes_loss
from spaf_train.objectives.chance import LEAST_AUROC, auroc_error
from spaf_train.objectives.score_summary import ScoreSummary, auroc_of
from spaf_train.recipes.config import ContrastConfig
from spaf_train.recipes.neighbours import neighbour_losses, pair_kinds
from spaf_train.recipes.patches import Cells
from spaf_train.recipes.towers import TowerStates, unlike


class ContrastLosses:
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

    def n_neighbours(self, cells: Cells) -> int:
        """Return the number of pairs of neighbours among the cells of a step."""
        return int(pair_kinds(cells.coordinates, self.config.neighbours).neighbours.sum()) // 2

    def validate(self, steps: list[Cells]) -> dict[str, float]:
        """Return the AUROC of neighbours against easy and hard negatives, over the pairs of some steps.

        What has no pairs is left out.
        """
        found = {kind: auroc_of([(values, counts)])[0] for kind, (values, counts) in self._ranked(steps).items()}
        return {f"auroc_{kind}": value for kind, value in found.items() if not math.isnan(value)}

    def not_learnt(self, steps: list[Cells]) -> dict[str, str]:
        """Return a sentence for each kind of negatives that neighbours are not told from, over the pairs of some steps.

        By ranks alone, since the loss of a contrast depends on how many cells compete. The error counts pairs as
        independent, which errs to the side of saying nothing.
        """
        sentences = {}
        for kind, parts in self._ranked(steps).items():
            value, n_negative, n_positive = auroc_of([parts])
            error = auroc_error(value, n_negative, n_positive)
            if math.isnan(value):
                sentences[kind] = f"Whether neighbours are told from {kind} negatives cannot be told: there are none."
            elif not (value > LEAST_AUROC and value - 2.0 * error > 0.5):
                sentences[kind] = (
                    f"Nothing was learnt of neighbours against {kind} negatives: their AUROC on the validation split "
                    f"is {value:.3f} (standard error {error:.3f}; chance .5, and up to {LEAST_AUROC:g} is a trace)."
                )
        return sentences

    @torch.no_grad()
    def _ranked(self, steps: list[Cells]) -> dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Return the similarities of neighbours and of each kind of negatives, as `ScoreSummary.parts`."""
        self.network.eval()
        found = {kind: ScoreSummary() for kind in ("easy", "hard")}
        for cells in steps:
            states = torch.from_numpy(embed_cells(self.network, self.vocabulary, cells.ranked, cells.context))
            similarity = self.head.similarity(states, states)
            kinds = pair_kinds(cells.coordinates, self.config.neighbours)
            near = similarity[kinds.neighbours.triu()].numpy()
            for kind, summary in found.items():
                summary.add(near, np.ones(near.size))
                far = similarity[getattr(kinds, kind).triu()].numpy()
                summary.add(far, np.zeros(far.size))
        self.network.train()
        return {kind: summary.parts() for kind, summary in found.items()}

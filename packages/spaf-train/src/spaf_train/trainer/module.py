"""The network with its objectives: from a batch to the total loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spaf_model import SpatialFormerNetwork
from spaf_train.objectives import ObjectivesConfig, ObjectiveWeighting, focal_loss, masked_genes_loss, pairs_loss
from spaf_train.stream.loader import Batch


class TrainingModule(nn.Module):
    """A network, its objectives and the learned scales between them.

    Parameters
    ----------
    network
        What is trained.
    objectives
        What it is trained for.
    """

    def __init__(self, network: SpatialFormerNetwork, objectives: ObjectivesConfig) -> None:
        super().__init__()
        self.network = network
        self.objectives = objectives
        self.weighting = ObjectiveWeighting(objectives.enabled, objectives.weighting.method)

    def forward(
        self, batch: Batch, weights: Mapping[str, float], factors: Mapping[str, float], share: float
    ) -> tuple[Tensor, Tensor]:
        """Return what a batch adds to the total loss of its step.

        Parameters
        ----------
        batch
            One batch of the step, on the device of the network.
        weights
            What the summed loss of each objective is divided by: `Batch.weights`, summed over the whole step.
        factors
            Weight and schedule of each objective.
        share
            Part of the step that this batch is, for terms that belong to the step as a whole.

        Returns
        -------
        tuple
            The total to differentiate, and a detached vector: the summed loss of each enabled objective, then the
            number of masked genes that were found.
        """
        sums: dict[str, Tensor] = {}
        hidden = self.network.encode(batch.masked)
        found = hidden.new_zeros(())
        if batch.masked_genes is not None:
            logits = masked_gene_logits(self.network, hidden, batch)
            sums["masked_genes"], found = masked_genes_loss(logits, batch.masked_genes.targets)
        if batch.colocalization is not None:
            config = self.objectives.colocalization
            logits = colocalization_logits(self.network, hidden, batch)
            targets = batch.colocalization.targets
            sums["colocalization"] = focal_loss(logits, targets, alpha=config.alpha, gamma=config.gamma)
        if batch.pairs is not None:
            sums["pairs"] = pairs_loss(self.network.pair_logits(hidden), batch.pairs)
        parts = {name: loss / max(weights[name], 1.0) for name, loss in sums.items()}
        total = self.weighting(parts, factors, share)
        return total, torch.stack([*(loss.detach() for loss in sums.values()), found.to(torch.float32)])


def masked_gene_logits(network: SpatialFormerNetwork, hidden: Tensor, batch: Batch) -> Tensor:
    """Return logits over the vocabulary at the masked positions of a batch, n_masked x V."""
    assert batch.masked_genes is not None
    return network.masked_gene_logits(hidden.flatten(0, 1).index_select(0, batch.masked_genes.positions))


def colocalization_logits(network: SpatialFormerNetwork, hidden: Tensor, batch: Batch) -> Tensor:
    """Return the co-localisation logits of the gene pairs of a batch, n_gene_pairs, in the order of its targets."""
    genes = batch.colocalization
    assert genes is not None
    # Genes alone, segment by segment: an (L, L) of both cells of a pair would be mostly logits between two cells.
    states = hidden.flatten(0, 1).index_select(0, genes.genes.flatten()).view(*genes.genes.shape, hidden.shape[-1])
    logits = network.colocalization_head(states)
    assert isinstance(logits, Tensor)
    return logits.transpose(1, 2).masked_select(genes.mask)

"""Losses and scores on the batches of the validation split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from spaf_model import SpatialFormerNetwork
from spaf_train.distributed import Ranks
from spaf_train.loader import Batch
from spaf_train.metrics import auroc
from spaf_train.module import colocalization_logits, masked_gene_logits
from spaf_train.objectives import ObjectivesConfig, focal_loss, masked_genes_loss, pairs_loss


@torch.inference_mode()
def validate(
    network: SpatialFormerNetwork,
    batches: Iterable[Batch],
    objectives: ObjectivesConfig,
    ranks: Ranks,
    *,
    autocast: torch.dtype | None = None,
) -> dict[str, float]:
    """Evaluate a network on batches.

    Masked genes are asked of the masked input; cell pairs and co-localisation of the unmasked one, which is what the
    model is used on.

    Parameters
    ----------
    network
        The network; it is in evaluation mode meanwhile, and in its former mode after.
    batches
        This rank's share of the batches.
    objectives
        Which objectives there are.
    ranks
        The processes that share the batches.
    autocast
        Lower precision to compute in, or None.

    Returns
    -------
    dict
        The columns of the metrics log that can be computed: the mean loss of each objective, `loss` as their plain
        sum, `accuracy_masked_genes`, `auroc_pairs` (neighbours against all drawn negatives), `auroc_colocalization`.
    """
    names = objectives.enabled
    totals = torch.zeros(2 * len(names) + 1, dtype=torch.float64)
    scores: dict[str, list[Tensor]] = {"pairs": [], "colocalization": []}
    labels: dict[str, list[Tensor]] = {"pairs": [], "colocalization": []}
    was_training = network.training
    network.eval()
    try:
        for batch in batches:
            weights = batch.weights()
            batch = batch.to(ranks.device)
            with torch.autocast(ranks.device.type, dtype=autocast, enabled=autocast is not None):
                sums: dict[str, Tensor] = {}
                found = torch.zeros(())
                if batch.masked_genes is not None:
                    hidden = network.encode(batch.masked)
                    logits = masked_gene_logits(network, hidden, batch)
                    sums["masked_genes"], found = masked_genes_loss(logits, batch.masked_genes.targets)
                if batch.colocalization is not None or batch.pairs is not None:
                    hidden = network.encode(batch.unmasked)
                if batch.colocalization is not None:
                    config = objectives.colocalization
                    logits = colocalization_logits(network, hidden, batch)
                    targets = batch.colocalization.targets
                    sums["colocalization"] = focal_loss(logits, targets, alpha=config.alpha, gamma=config.gamma)
                    scores["colocalization"].append(logits.float().cpu())
                    labels["colocalization"].append(targets.to(torch.int8).cpu())
                if batch.pairs is not None:
                    logits = network.pair_logits(hidden).float()
                    sums["pairs"] = pairs_loss(logits, batch.pairs)
                    scores["pairs"].append((logits[:, 1] - logits[:, 0]).cpu())
                    labels["pairs"].append(batch.pairs.labels.cpu())
            row = [*(float(sums[name]) for name in names), *(weights[name] for name in names), float(found)]
            totals += torch.tensor(row, dtype=torch.float64)
    finally:
        network.train(was_training)

    local = (totals, {name: (_joined(scores[name]), _joined(labels[name])) for name in scores})
    gathered = ranks.gather(local)
    summed = torch.stack([part[0] for part in gathered]).sum(dim=0).tolist()
    n = len(names)
    weight = dict(zip(names, summed[n : 2 * n], strict=True))
    losses = {name: value / max(weight[name], 1.0) for name, value in zip(names, summed[:n], strict=True)}
    metrics = {f"loss_{name}": loss for name, loss in losses.items()}
    metrics["loss"] = sum(losses.values())
    if "masked_genes" in names:
        metrics["accuracy_masked_genes"] = summed[-1] / max(weight["masked_genes"], 1.0)
    for name in ("pairs", "colocalization"):
        if name in names:
            joined = [np.concatenate([part[1][name][side] for part in gathered]) for side in (0, 1)]
            metrics[f"auroc_{name}"] = auroc(joined[0], joined[1])
    return metrics


def _joined(pieces: list[Tensor]) -> np.ndarray:
    return torch.cat(pieces).numpy() if pieces else np.zeros(0, dtype=np.float32)

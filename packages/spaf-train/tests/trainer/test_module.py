import dataclasses

import pytest
import torch

from spaf_model import SpatialFormer
from spaf_train import ObjectivesConfig, TrainingModule, auroc
from spaf_train.objectives import (
    ColocalizationConfig,
    MaskedGenesConfig,
    PairsConfig,
    colocalization_logits,
    masked_gene_logits,
)

FACTORS = {"masked_genes": 1.0, "colocalization": 1.0, "pairs": 1.0}


@pytest.fixture
def batch(make_stream):
    return next(make_stream(token_budget=1500).one_epoch())


def test_one_batch_can_be_learnt_by_heart(config, vocabulary, batch):
    """Targets of other positions or inputs would still give falling losses, but not the right answers."""
    none = dict.fromkeys(("embedding_dropout", "conv_dropout", "mlp_dropout", "drop_path"), 0.0)
    larger = dataclasses.replace(config.model, width=32, colocalization_rank=16, **none)
    network = SpatialFormer(larger, vocabulary, seed=0).network
    module = TrainingModule(network, ObjectivesConfig())
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        total, _ = module(batch, batch.weights(), FACTORS, 1.0)
        total.backward()
        optimizer.step()
    network.eval()
    with torch.inference_mode():
        hidden = network.encode(batch.masked)
        pairs = network.pair_logits(hidden).softmax(dim=1)[:, 1].numpy()
        genes = masked_gene_logits(network, hidden, batch.targets["masked_genes"]).argmax(dim=1)
        edges = colocalization_logits(network, hidden, batch.targets["colocalization"]).numpy()
    assert auroc(pairs, batch.targets["pairs"].labels.numpy()) > 0.9
    assert (genes == batch.targets["masked_genes"].targets).float().mean() > 0.3
    assert auroc(edges, batch.targets["colocalization"].targets.numpy()) > 0.7


def test_switched_off_objectives_are_neither_built_nor_computed(network, make_stream, monkeypatch):
    objectives = ObjectivesConfig(colocalization=ColocalizationConfig(enabled=False), pairs=PairsConfig(enabled=False))
    batch = next(make_stream(objectives=objectives).one_epoch())
    assert "colocalization" not in batch.targets
    assert "pairs" not in batch.targets
    assert list(batch.weights()) == ["masked_genes"]
    for head in (network.colocalization_head, network.pair_head):
        monkeypatch.setattr(head, "forward", lambda *arguments: pytest.fail("computed though switched off"))
    total, sums = TrainingModule(network, objectives)(batch, batch.weights(), FACTORS, 1.0)
    total.backward()
    assert sums.shape == (2,)
    assert network.pair_head.weight.grad is None


def test_logits_of_masked_genes_are_computed_at_masked_positions_only(network, batch, monkeypatch):
    objectives = ObjectivesConfig(masked_genes=MaskedGenesConfig())
    seen = []
    original = network.masked_gene_logits
    monkeypatch.setattr(network, "masked_gene_logits", lambda hidden: seen.append(hidden.shape) or original(hidden))
    TrainingModule(network, objectives)(batch, batch.weights(), FACTORS, 1.0)
    assert seen == [(batch.targets["masked_genes"].positions.numel(), network.config.width)]


@pytest.mark.parametrize("head", ["symmetric", "bilinear", "additive"])
def test_logits_of_gene_pairs_are_those_of_their_positions(config, vocabulary, batch, head):
    network = SpatialFormer(dataclasses.replace(config.model, colocalization_head=head), vocabulary, seed=0).network
    with torch.no_grad():
        hidden = network.encode(batch.unmasked)
        listed = colocalization_logits(network, hidden, batch.targets["colocalization"])
        whole = network.colocalization_logits(hidden, batch.unmasked)
    torch.testing.assert_close(listed, whole.flatten()[batch.targets["colocalization"].positions])

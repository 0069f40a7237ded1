import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from spaf_train import ObjectivesConfig
from spaf_train.objectives import focal_loss
from spaf_train.objectives.chance import Judgement, auroc_error, entropy, least_focal_loss
from spaf_train.trainer.distributed import Ranks
from spaf_train.trainer.validation import look

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_the_best_constant_logit_of_the_focal_loss():
    targets = torch.zeros(1000)
    targets[:37] = 1.0
    losses = [
        float(focal_loss(torch.full((1000,), logit), targets, alpha=0.25, gamma=2.0)) / 1000
        for logit in np.linspace(-8, 8, 4001).tolist()
    ]
    assert least_focal_loss(37, 963, alpha=0.25, gamma=2.0) == pytest.approx(min(losses), rel=1e-4)


def test_entropy_of_shares():
    assert entropy(np.array([3, 3])) == pytest.approx(np.log(2))
    assert entropy(np.array([2, 0, 1, 1])) == pytest.approx(1.5 * np.log(2))


def test_the_error_of_an_auroc_is_its_spread_over_draws():
    generator = np.random.default_rng(0)
    labels = np.arange(300) < 100
    found = [roc_auc_score(labels, generator.normal(0.5 * labels)) for _ in range(300)]
    assert auroc_error(float(np.mean(found)), 200, 100) == pytest.approx(np.std(found), rel=0.2)


@pytest.mark.parametrize(
    ("values", "learnt"),
    [
        ({"loss": 0.6925, "auroc": 0.51}, False),  # it stayed at ln 2
        ({"loss": 0.6880, "auroc": 0.57}, True),
        ({"loss": 0.6880, "error": 0.01, "auroc": 0.52}, False),
        ({"loss": 0.75, "auroc": 0.62}, True),  # over-confident, and ranked well
        ({"loss": 0.75, "auroc": 0.62, "auroc_error": 0.1}, False),
        ({"loss": 0.6, "auroc": float("nan")}, False),
        ({"name": "colocalization", "by_rank": False, "loss": 0.75, "auroc": 0.62}, False),
        ({"name": "masked_genes", "by_rank": False, "loss": 0.5}, True),
    ],
)
def test_what_counts_as_learnt(values, learnt):
    found = Judgement(**{"name": "pairs", "by_rank": True, "error": 0.001, "constant": float(np.log(2)), **values})
    assert found.learnt == learnt
    assert "nan" not in found.sentence()


def test_a_constant_network_has_learnt_nothing_and_its_losses_are_those_of_constants(network, make_stream):
    """A head that is zero answers as well as a constant can without knowing the shares; tuned biases do exactly."""
    batches = list(make_stream(split="validation").one_epoch(max_inputs=200))
    with torch.no_grad():
        network.pair_head.weight.zero_()
        network.masked_gene_head.weight.zero_()
        targets = torch.cat([batch.targets["masked_genes"].targets for batch in batches])
        counts = torch.bincount(targets, minlength=network.config.n_tokens).float()
        network.masked_gene_head.bias.copy_((counts / counts.sum()).clamp_min(1e-9).log())
        network.colocalization_head.weight.zero_()
        network.colocalization_head.bias.zero_()  # what is left are the offsets of the strata of expression
    found = look(network, batches, ObjectivesConfig(), ALONE)
    assert set(found.not_learnt()) == {"masked_genes", "colocalization", "pairs"}
    judged = found.judgements["masked_genes"]
    assert judged.loss == pytest.approx(judged.constant, rel=1e-4)
    judged = found.judgements["colocalization"]
    assert judged.loss == pytest.approx(judged.chance, rel=0.005)  # strata of each batch, and of all of them
    assert judged.auroc == 0.5
    assert found.judgements["pairs"].loss == pytest.approx(np.log(2), rel=1e-6)
    assert found.judgements["pairs"].constant <= np.log(2)
    assert found.judgements["pairs"].auroc == 0.5


def test_the_error_of_a_loss_is_its_spread_over_draws_of_batches(network, make_stream):
    batches = list(make_stream(split="validation", token_budget=300).one_epoch(max_inputs=400))
    judged = look(network, batches, ObjectivesConfig(), ALONE).judgements["masked_genes"]
    generator = np.random.default_rng(0)
    found = []
    for _ in range(60):
        drawn = [batches[place] for place in generator.integers(0, len(batches), len(batches))]
        found.append(look(network, drawn, ObjectivesConfig(), ALONE).metrics["loss_masked_genes"])
    assert judged.error == pytest.approx(np.std(found), rel=0.35)


def test_what_is_not_asked_is_left_out(network, make_stream):
    batches = list(make_stream(split="validation").one_epoch(max_inputs=30))
    nothing = torch.zeros(0, dtype=torch.int64)
    for place, batch in enumerate(batches):
        unknown = dataclasses.replace(
            batch.targets["colocalization"],
            n_genes=nothing,
            genes=nothing.view(0, 0),
            colocalized=nothing,
            counts=nothing.view(0, 0).float(),
        )
        batches[place] = dataclasses.replace(batch, targets={**batch.targets, "colocalization": unknown})
    found = look(network, batches, ObjectivesConfig(), ALONE)
    assert not [name for name in found.metrics if "colocalization" in name]
    assert "colocalization" not in found.judgements
    assert found.metrics["loss"] == found.metrics["loss_masked_genes"] + found.metrics["loss_pairs"]

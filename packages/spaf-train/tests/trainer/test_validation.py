import numpy as np
import pytest
import torch

from spaf_train import ObjectivesConfig, auroc, validate
from spaf_train.objectives import OBJECTIVES
from spaf_train.trainer.distributed import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_agrees_with_a_slow_look_at_each_input(network, make_stream):
    """One input at a time, dense co-localisation logits, probabilities from softmax."""
    # Each gene pair beside all others, as published; pairs of like counts have tests of their own.
    plain = ObjectivesConfig(colocalization=OBJECTIVES["colocalization"].Config(by_expression=False))
    stream = make_stream(split="validation", objectives=plain)
    batches = list(stream.one_epoch(max_inputs=60))
    found = validate(network, batches, plain, ALONE)
    network.eval()
    right = masked = focal = gene_pairs = 0.0
    scores, labels, colocalized, truth = [], [], [], []
    cross_entropy = weighted = weights = 0.0
    with torch.inference_mode():
        for batch in batches:
            hidden = network.encode(batch.masked).flatten(0, 1)
            for position, target in zip(
                batch.targets["masked_genes"].positions, batch.targets["masked_genes"].targets, strict=True
            ):
                p = network.masked_gene_logits(hidden[position]).double().softmax(0)
                cross_entropy -= p[target].log().item()
                right += p.argmax().item() == target.item()
                masked += 1
            hidden = network.encode(batch.unmasked)
            p = network.pair_logits(hidden).double().softmax(1)[:, 1]
            for value, label in zip(p.tolist(), batch.targets["pairs"].labels.tolist(), strict=True):
                weight = 2.0 if label else 1.0
                weighted -= weight * np.log(value if label else 1 - value)
                weights += weight
                scores.append(value)
                labels.append(label)
            dense = network.colocalization_logits(hidden, batch.unmasked).flatten()
            p = dense[batch.targets["colocalization"].positions].double().sigmoid().numpy()
            y = batch.targets["colocalization"].targets.numpy()
            focal -= (0.25 * (1 - p[y > 0]) ** 2 * np.log(p[y > 0])).sum()
            focal -= (0.75 * p[y == 0] ** 2 * np.log(1 - p[y == 0])).sum()
            gene_pairs += p.size
            colocalized.append(p)
            truth.append(y)
    expected = {
        "loss_masked_genes": cross_entropy / masked,
        "accuracy_masked_genes": right / masked,
        "loss_pairs": weighted / weights,
        "loss_colocalization": focal / gene_pairs,
        "auroc_pairs": auroc(np.array(scores), np.array(labels)),
        "auroc_colocalization": auroc(np.concatenate(colocalized), np.concatenate(truth)),
    }
    expected["loss"] = sum(value for name, value in expected.items() if name.startswith("loss"))
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-5, abs=1e-5), name


def test_mode_of_the_network_is_restored(network, make_stream):
    network.train()
    validate(network, make_stream(split="validation").one_epoch(max_inputs=10), ObjectivesConfig(), ALONE)
    assert network.training

import math

import pytest
import torch

from spaf_train.objectives import PairLabels, pairs_loss


def test_loss_by_hand():
    labels = PairLabels(torch.tensor([1, 0, 0]), positive_weight=2.0)
    logits = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
    expected = 2 * math.log(1 + math.exp(-1)) + math.log(2) + math.log(1 + math.exp(-2))
    assert pairs_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert labels.weight == 4.0


def test_a_constant_answer_is_worth_log_two_at_the_drawn_ratio():
    """With one positive for two negatives the weights make the classes equal, so a coin is the best blind guess."""
    labels = PairLabels(torch.tensor([1, 0, 0] * 10), positive_weight=2.0)
    blind = [pairs_loss(torch.tensor([[0.0, bias]]).repeat(30, 1), labels).item() for bias in (-0.5, 0.0, 0.5)]
    assert blind[1] / labels.weight == pytest.approx(math.log(2), rel=1e-6)
    assert blind[1] < min(blind[0], blind[2])

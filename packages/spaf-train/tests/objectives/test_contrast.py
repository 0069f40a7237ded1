import numpy as np
import pytest
import torch

from spaf_data import Distances
from spaf_model import InputError
from spaf_train import SamplingConfig
from spaf_train.objectives import ContrastConfig
from spaf_train.objectives.contrast import contrast, pair_kinds, probability_loss


def test_pairs_are_of_the_kind_that_their_distance_says():
    points = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 80.0], [0.0, 81.0], [150.0, 0.0], [0.0, 150.5]])
    kinds = pair_kinds(points, Distances())
    assert kinds.neighbours.nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    assert kinds.hard[0].nonzero().flatten().tolist() == [3, 4]
    assert kinds.easy[0].nonzero().flatten().tolist() == [5]
    for kind in (kinds.neighbours, kinds.hard, kinds.easy):
        assert torch.equal(kind, kind.T)
    assert not (kinds.neighbours & kinds.hard).any()
    assert not (kinds.hard & kinds.easy).any()


def slow_contrast(similarity, neighbours, others):
    terms = []
    for a in range(len(similarity)):
        rest = [np.exp(similarity[a, c]) for c in range(len(similarity)) if others[a, c]]
        for b in range(len(similarity)):
            if neighbours[a, b] and rest:
                own = np.exp(similarity[a, b])
                terms.append(-np.log(own / (own + sum(rest))))
    return np.mean(terms) if terms else 0.0


def test_contrast_agrees_with_the_sum_written_out():
    generator = np.random.default_rng(0)
    kinds = pair_kinds(generator.uniform(0, 300, (40, 2)), Distances())
    similarity = generator.normal(size=(40, 40))
    for others in (kinds.hard, kinds.easy):
        loss = contrast(torch.from_numpy(similarity), kinds.neighbours, others)
        assert float(loss) == pytest.approx(slow_contrast(similarity, kinds.neighbours.numpy(), others.numpy()))


def test_contrast_without_pairs_or_others_is_zero_and_has_a_gradient():
    none = torch.zeros(3, 3, dtype=torch.bool)
    every = ~torch.eye(3, dtype=torch.bool)
    for neighbours, others in ((none, every), (every, none)):
        similarity = torch.randn(3, 3, requires_grad=True)
        loss = contrast(similarity, neighbours, others)
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert similarity.grad is not None
        assert similarity.grad.isfinite().all()


def test_probability_loss_weighs_the_kinds_evenly_however_many_there_are():
    points = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 100.0], [0.0, 500.0], [0.0, 510.0]])
    kinds = pair_kinds(points, Distances())
    assert float(probability_loss(torch.zeros(5, 5), kinds)) == pytest.approx(np.log(2))
    right = torch.where(kinds.neighbours, 20.0, -20.0)
    assert float(probability_loss(right, kinds)) < 1e-6
    assert float(probability_loss(-right, kinds)) == pytest.approx(20.0, rel=1e-3)


@pytest.mark.parametrize(("option", "value"), [("easy_weight", -1.0), ("hard_weight", float("nan")), ("weight", -0.1)])
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(InputError, match=option):
        ContrastConfig(**{option: value})


@pytest.mark.parametrize(("option", "value"), [("radius", 0.0), ("hard_min", 10.0), ("hard_max", 80.0)])
def test_a_distance_out_of_range_is_named(option, value):
    with pytest.raises(InputError, match=option):
        SamplingConfig(**{option: value}).distances()


def test_cells_of_two_slides_are_no_pair():
    points = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 100.0], [0.0, 500.0]])
    kinds = pair_kinds(points, Distances(), np.array([0, 1, 1, 1]))
    assert not any(bool(kind[0].any()) for kind in (kinds.neighbours, kinds.hard, kinds.easy))
    assert kinds.hard[1, 2]
    assert kinds.easy[1, 3]

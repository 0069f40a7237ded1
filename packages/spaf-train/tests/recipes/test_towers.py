import numpy as np
import pytest
import torch

from spaf_model import InputError
from spaf_train.recipes import NeighboursConfig, PatchConfig, TowersConfig
from spaf_train.recipes.patches import Patches
from spaf_train.recipes.towers import Tower, standardised_expression, tower_states, train_tower, unlike
from spaf_train.trainer.optim import OptimizerConfig

CONFIG = TowersConfig(
    towers=2, hidden=16, rank=4, steps=40, optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
)


@pytest.fixture
def patches(corpus, vocabulary):
    config = PatchConfig(sites=8, cells=6, thinning=0.0)
    return Patches(corpus, vocabulary, split="train", config=config, max_genes=None)


def similarity(tower, expression):
    with torch.no_grad():
        hidden = tower(expression)
        return tower.pair_head.similarity(hidden, hidden)


def test_a_tower_learns_which_cells_are_alike(patches):
    expression = standardised_expression(patches)
    tower = train_tower(patches, expression, CONFIG, NeighboursConfig(), seed=0)
    cells, coordinates = patches.choose(np.random.default_rng(99))
    # The two stripes of the slides hold two cell types.
    stripe = torch.from_numpy(coordinates[:, 1] > 125)
    values = similarity(tower, expression[torch.from_numpy(cells)])
    same = stripe[:, None] == stripe[None]
    assert float(values[same].mean()) > float(values[~same].mean()) + 1.0


def test_equal_seeds_give_equal_towers(patches):
    expression = standardised_expression(patches)
    one, same = (train_tower(patches, expression, CONFIG, NeighboursConfig(), seed=3) for _ in range(2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name


def test_expression_is_standardised_and_has_the_genes_that_some_cell_has(patches):
    expression = standardised_expression(patches)
    found = (np.asarray(patches.counts().sum(axis=0)).ravel() > 0).sum()
    assert expression.shape == (patches.n_cells, found)
    np.testing.assert_allclose(expression.mean(dim=0), 0.0, atol=0.05)
    assert float(expression.abs().max()) <= 5.0


def test_the_states_give_the_mean_similarity_of_the_towers():
    expression = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    towers = [Tower(7, CONFIG).eval() for _ in range(2)]
    with torch.no_grad():
        towers[0].pair_head.weight[0] = -2.0  # a dimension in which the alike are told apart
    mean = (similarity(towers[0], expression) + similarity(towers[1], expression)) / 2
    whole = tower_states(towers, expression, rank=8)
    assert -1.0 in whole.signs
    torch.testing.assert_close((whole.states * whole.signs) @ whole.states.T, mean, rtol=1e-3, atol=1e-3)
    # Fewer dimensions are the best approximation of that rank.
    few = tower_states(towers, expression, rank=3)
    left, sizes, _ = torch.linalg.svd(mean.double())
    error = (mean - (few.states * few.signs) @ few.states.T).square().sum()
    assert float(error) == pytest.approx(float(sizes[3:].square().sum()), rel=1e-2)


def test_unlike_is_the_unexplained_share_of_the_variance():
    target = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    assert float(unlike(target, target)) == 0.0
    assert float(unlike(target.mean(dim=0).expand_as(target), target)) == pytest.approx(1.0)


@pytest.mark.parametrize(("option", "value"), [("towers", -1), ("hidden", 0), ("dropout", 1.0), ("weight", -0.1)])
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(InputError, match=option):
        TowersConfig(**{option: value})

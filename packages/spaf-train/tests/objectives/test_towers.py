import numpy as np
import pytest
import torch

from spaf_model import InputError
from spaf_train import ObjectivesConfig, OptimizerConfig
from spaf_train._options import Tables
from spaf_train.objectives import PairsConfig
from spaf_train.objectives.distillation import DistillationObjective, TeacherStates
from spaf_train.objectives.towers import (
    Standardised,
    Tower,
    TowersConfig,
    states_beside,
    tower_states,
    train_tower,
)
from spaf_train.stream.samplers import PatchConfig
from spaf_train.trainer.signals import StopRequest

CONFIG = TowersConfig(
    towers=2, hidden=16, rank=4, steps=40, optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
)


@pytest.fixture
def make_patches(make_stream):
    def make(split="train"):
        tables = Tables({"patches": PatchConfig(sites=8, cells=6)})
        objectives = ObjectivesConfig(pairs=PairsConfig(enabled=False))
        return make_stream(input="patches", tables=tables, objectives=objectives, split=split)

    return make


@pytest.fixture
def patches(make_patches):
    return make_patches()


@pytest.fixture
def expression(patches):
    return Standardised(patches.all_cells(), patches.vocabulary.n_tokens)(patches.all_cells())


def similarity(tower, expression):
    with torch.no_grad():
        hidden = tower(expression)
        return tower.pair_head.similarity(hidden, hidden)


def test_a_tower_learns_which_cells_are_alike(patches, expression):
    tower = train_tower(patches, expression, CONFIG, seed=0)
    chosen = next(patches.draws(99)).left
    # The two stripes of the slides hold two cell types.
    stripe = torch.from_numpy(patches.all_cells().coordinates[chosen, 1] > 125)
    values = similarity(tower, expression[torch.from_numpy(chosen)])
    same = stripe[:, None] == stripe[None]
    assert float(values[same].mean()) > float(values[~same].mean()) + 1.0


def test_equal_seeds_give_equal_towers(patches, expression):
    one, same = (train_tower(patches, expression, CONFIG, seed=3) for _ in range(2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name


def test_expression_is_standardised_and_has_the_genes_that_some_cell_has(corpus, patches, expression):
    """Held against a slow look at the blocks."""
    counts = np.zeros((patches.n_cells, len(corpus.genes)))
    row = 0
    for ref in corpus.block_refs("train"):
        block = corpus.read(ref)
        for cell in range(block.n_owned):
            entries = slice(block.indptr[cell], block.indptr[cell + 1])
            counts[row, block.genes[entries]] = block.counts[entries]
            row += 1
    found = counts.any(axis=0)
    assert expression.shape == (patches.n_cells, found.sum())
    values = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))[:, found]
    values = np.clip((values - values.mean(axis=0)) / (values.std(axis=0) + 1e-3), -5.0, 5.0)
    tokens = patches.vocabulary.match(corpus.genes, corpus.gene_ids).token_ids[found]
    np.testing.assert_allclose(expression, values[:, np.argsort(tokens)], rtol=1e-4, atol=1e-4)


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
    # Other cells have theirs on the same axes.
    torch.testing.assert_close(states_beside(towers, expression[:9], whole), whole.states[:9])
    # Fewer dimensions are the best approximation of that rank.
    few = tower_states(towers, expression, rank=3)
    _, sizes, _ = torch.linalg.svd(mean.double())
    error = (mean - (few.states * few.signs) @ few.states.T).square().sum()
    assert float(error) == pytest.approx(float(sizes[3:].square().sum()), rel=1e-2)


def test_states_of_both_splits_are_those_of_the_cells_of_a_batch(make_patches):
    train, validation = make_patches(), make_patches("validation")
    objective = DistillationObjective(CONFIG)
    prepared = objective.prepare(train, validation, StopRequest())
    assert prepared["train"].shape == (train.n_cells, 4)
    assert prepared["validation"].shape == (validation.n_cells, 4)
    assert all(bool(states.abs().sum(dim=1).all()) for states in (prepared["train"], prepared["validation"]))
    again = objective.prepare(train, validation, StopRequest())
    assert all(torch.equal(prepared[name], again[name]) for name in prepared)


def test_the_loss_is_the_unexplained_share_of_the_variance():
    states = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    spread = TeacherStates(states).weight
    assert float((states.mean(dim=0) - states).square().sum()) / spread == pytest.approx(1.0)


@pytest.mark.parametrize(("option", "value"), [("towers", 0), ("hidden", 0), ("dropout", 1.0), ("weight", -0.1)])
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(InputError, match=option):
        TowersConfig(**{option: value})

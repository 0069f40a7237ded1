import dataclasses

import numpy as np
import pytest
import torch

from spaf_data import Distances
from spaf_model import InputError, SpatialFormer, SpatialFormerConfig
from spaf_train import BatchStream, ObjectivesConfig, SamplingConfig, TrainingModule, read_config
from spaf_train.objectives import OBJECTIVES
from spaf_train.objectives.contrast import centred, pair_kinds, similarities
from spaf_train.objectives.masked_genes import MaskedGenes
from spaf_train.objectives.reconstruction import OwnValues

VALUED = {"pair_input": "separate", "gene_values": "pearson", "decoder_width": 8, "linear_path": 4}
SIZES = {"width": 16, "n_layers": 1, "n_heads": 2, "conv_kernel": 3, "colocalization_rank": 4}


@pytest.fixture
def made(corpus, vocabulary):
    def make(*enabled, panel_min=1.0, **options):
        model = SpatialFormer(SpatialFormerConfig(**SIZES, **VALUED | options), vocabulary, seed=1)
        on = ObjectivesConfig(**{name: one.Config(enabled=name in enabled) for name, one in OBJECTIVES.items()})
        sampling = SamplingConfig(input="patches", token_budget=100_000, panel_min=panel_min)
        stream = BatchStream(corpus, model, sampling, on, split="train", seed=2)
        return model, TrainingModule(model.network, on), stream

    return make


def test_the_loss_is_the_share_that_is_not_explained(made):
    model, module, stream = made("reconstruction")
    batch = stream.next_step()[0]
    targets = batch.targets["reconstruction"]
    objective = module.objectives["reconstruction"]

    class Network:
        decoder = staticmethod(lambda state: torch.zeros_like(targets.values))
        pool = staticmethod(lambda hidden, batch, method: hidden[:, 0])

    nothing = objective.loss(Network, torch.zeros(len(targets.values), 3, 16), targets, None)
    assert float(nothing.sum) == pytest.approx(targets.weight, rel=1e-5)
    Network.decoder = staticmethod(lambda state: targets.values + 9.0 * ~targets.known)
    assert float(objective.loss(Network, torch.zeros(len(targets.values), 3, 16), targets, None).sum) == 0.0
    assert objective.operations(model.network, targets) > 0


def test_targets_are_the_whole_cell_whatever_is_shown(made):
    _, _, stream = made("reconstruction", panel_min=0.2)
    batch = stream.next_step()[0]
    targets = batch.targets["reconstruction"]
    shown = batch.masked.profile.ne(0).any(dim=0)
    asked = targets.values.ne(0).any(dim=0)
    assert asked.sum() > shown.sum()
    assert torch.equal(targets.to(torch.device("cpu")).values, targets.values)


def test_reconstruction_is_learnt_and_its_gradient_passes_the_state(made):
    model, module, stream = made("reconstruction")
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        batch = stream.next_step()[0]
        total, noted = module(batch, batch.weights(), {"reconstruction": 1.0}, 1.0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(noted[0]) / batch.weights()["reconstruction"])
    assert np.mean(losses[-5:]) < 0.97 * np.mean(losses[:5])
    assert model.network.embedding.gene_values.weight.grad.abs().sum() > 0
    assert model.network.pair_head.project.weight.grad is None


def test_reconstruction_needs_a_decoder(config_path):
    with pytest.raises(InputError, match="reconstruction needs model.decoder_width"):
        read_config(
            config_path,
            overrides=[
                "model.pair_input=separate", "sampling.input=patches", "objectives.pairs.enabled=false",
                "objectives.reconstruction.enabled=true",
            ],
        )  # fmt: skip


def test_contrast_acts_on_a_projection_of_its_own(made):
    model, module, stream = made("contrast", contrast_rank=4, pair_comparison="cosine")
    network = model.network
    batch = stream.next_step()[0]
    hidden = network.encode(batch.masked)
    targets = batch.targets["contrast"]
    ranking, of_head = similarities(network, hidden[:, 0], targets.slide)
    projected = torch.nn.functional.normalize(network.contrast_projection(hidden[:, 0]), dim=-1)
    torch.testing.assert_close(ranking, projected @ projected.T / 0.2)
    states = centred(hidden[:, 0], targets.slide)
    unit = torch.nn.functional.normalize(states, dim=-1)
    torch.testing.assert_close(of_head, unit @ unit.T)
    module(batch, batch.weights(), {"contrast": 1.0}, 1.0)[0].backward()
    assert all(parameter.grad is not None for parameter in network.contrast_projection.parameters())
    assert network.pair_head.slope.grad is not None


@pytest.mark.parametrize(("rank", "comparison"), [(0, "projection"), (0, "cosine"), (4, "projection")])
def test_each_of_projection_and_cosine_can_be_alone(made, rank, comparison):
    _, module, stream = made("contrast", "reconstruction", contrast_rank=rank, pair_comparison=comparison)
    batch = stream.next_step()[0]
    total, _ = module(batch, batch.weights(), {"contrast": 1.0, "reconstruction": 1.0}, 1.0)
    total.backward()
    assert bool(torch.isfinite(total))


def test_states_are_centred_by_the_cells_of_their_slide_in_the_batch():
    states = torch.tensor([[1.0], [3.0], [10.0], [20.0]])
    assert centred(states, torch.tensor([0, 0, 1, 1])).flatten().tolist() == [-1.0, 1.0, -5.0, 5.0]
    kinds = pair_kinds(np.zeros((3, 2)), Distances(), np.array([7, 2, 7]))
    assert kinds.slide.tolist() == [1, 0, 1]
    assert kinds.to(torch.device("cpu")).slide.tolist() == [1, 0, 1]


def test_a_hidden_gene_shows_no_value(made):
    _, _, stream = made("reconstruction")
    batch = stream.next_step()[0].masked
    places = torch.tensor([6, 7, 8])
    gene = batch.ids.flatten()[places]
    shown = torch.stack([gene[0] * 0 + 2, gene[1], gene[0]])  # MASK, itself, another gene
    hidden = MaskedGenes(places, gene, shown).hide_in(batch)
    values = hidden.values.flatten()[places]
    assert values[0] == 0
    assert values[1] == batch.values.flatten()[7] != 0
    assert values[2] == 0
    assert batch.values.flatten()[6] != 0
    assert dataclasses.replace(hidden, values=batch.values, ids=batch.ids).profile is batch.profile


def test_own_values_weigh_what_the_mean_cell_leaves():
    values = torch.tensor([[1.0, -2.0]])
    assert OwnValues(values, torch.ones(1, 2, dtype=torch.bool)).weight == 5.0


def test_distillation_needs_the_projection_of_the_pair_head(config_path):
    with pytest.raises(InputError, match="distillation needs model.pair_comparison = projection"):
        read_config(
            config_path,
            overrides=[
                "model.pair_input=separate", "model.pair_comparison=cosine", "sampling.input=patches",
                "objectives.pairs.enabled=false", "objectives.distillation.enabled=true",
            ],
        )  # fmt: skip

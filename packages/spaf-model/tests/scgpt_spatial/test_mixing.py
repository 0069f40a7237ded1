"""Counts that are seen around a cell, joined with the decoder of neighbourhoods."""

from collections.abc import Callable

import anndata
import numpy as np
import pytest
import torch

from spaf_model import InputError, Vocabulary, load_model
from spaf_model.scgpt_spatial import NeighbourMix, ScGPTSpatial, ScGPTSpatialConfig, Surroundings
from spaf_model.scgpt_spatial.mixing import PACE

SMALL = {"width": 16, "n_layers": 1, "n_heads": 2, "n_neighbours": 5}
GENES = ["GENE3", "GENE17", "GENE30"]


@pytest.fixture
def mixing(vocabulary: Vocabulary, randomised: Callable[[torch.nn.Module], None]) -> ScGPTSpatial:
    model = ScGPTSpatial(ScGPTSpatialConfig(**SMALL, neighbour_mix="learnt"), vocabulary, seed=3)  # type: ignore[arg-type]
    randomised(model.network)
    model.network.eval()
    return model


@pytest.fixture
def placed(adata: anndata.AnnData) -> anndata.AnnData:
    adata.X = adata.X.toarray()
    adata.obsm["spatial"] = np.random.default_rng(0).random((60, 2))
    adata.obs["slide"] = ["a", "b"] * 30
    return adata


def slow(model: ScGPTSpatial, adata: anndata.AnnData) -> np.ndarray:
    """Expected counts by the formula, a cell and a gene at a time."""
    network, vocabulary = model.network, model.vocabulary
    mix, output = network.neighbour_mix, network.count_output
    copy = adata.copy()
    model.embed(copy, progress=False)
    states = copy.obsm["X_SpaF"].astype(np.float64)
    ids = vocabulary.look_up(GENES).token_ids
    counts, columns = adata.X.astype(float), adata.var_names.get_indexer(GENES)
    known = vocabulary.look_up(list(adata.var_names)).token_ids >= 0
    totals, slide = counts[:, known].sum(axis=1), adata.obs["slide"].to_numpy()
    places = adata.obsm["spatial"]
    width = float(np.exp(PACE * mix.log_width.detach().numpy()[2]))
    prior = float(np.exp(PACE * mix.log_prior.detach().numpy()[2]))
    found = np.full((adata.n_obs, len(GENES)), np.nan)
    for cell in range(adata.n_obs):
        if totals[cell] == 0 or not np.isfinite(places[cell]).all():
            continue
        others = [o for o in np.flatnonzero(slide == slide[cell]) if o != cell and totals[o] > 0]
        distance = {o: float(np.linalg.norm(places[cell] - places[o])) for o in others if np.isfinite(places[o]).all()}
        near = sorted(distance, key=distance.get)[: SMALL["n_neighbours"]]
        if not near:
            continue
        unit = np.mean([distance[o] for o in near][:6])
        weights = {w: np.array([np.exp(-0.5 * (distance[o] / unit / w) ** 2) for o in near]) for w in (width, 1.3)}
        weights = {w: own / own.sum() for w, own in weights.items()}
        rest = [o for o in np.flatnonzero(slide == slide[cell]) if o != cell]
        mean_state = np.mean([states[o] for o in rest if totals[o] > 0], axis=0)
        state = torch.tensor(weights[1.3] @ states[near] - mean_state, dtype=torch.float32)[None]
        technology = torch.zeros((1, SMALL["width"]))
        numbers = network.neighbourhood_decoder(state, network.genes(torch.from_numpy(ids)), technology)[0]
        effective = 1.0 / (weights[width] ** 2).sum()
        for place, (gene, column) in enumerate(zip(ids, columns, strict=True)):
            rate = float(torch.exp(output.log_rate[gene] + output.technology_scale[2]))
            share = (counts[rest, column].sum() + rate) / (totals[rest].sum() + 1.0)
            around = (weights[width] @ counts[near, column]) / (weights[width] @ totals[near])
            seen = (effective * around + prior * share) / (effective + prior)
            gate = float(torch.sigmoid(PACE * (mix.gate[gene] + mix.technology_gate[2])))
            log_share = np.log(share) + gate * np.log(seen / share) + (1.0 - gate) * float(numbers[place])
            found[cell, place] = totals[cell] * np.exp(log_share)
    return found


@torch.no_grad()
def test_expectations_are_those_of_the_slow_twin(mixing: ScGPTSpatial, placed: anndata.AnnData) -> None:
    """With a cell without counts, one without a place, and one that is alone on its slide."""
    placed.X[4] = 0
    placed.obsm["spatial"][7] = np.nan
    placed.obs["slide"] = ["alone", *placed.obs["slide"][1:]]
    found = mixing.expression(placed, GENES, niche=True, progress=False)
    np.testing.assert_allclose(found.niche, slow(mixing, placed), rtol=2e-3)
    assert np.isnan(found.niche[[0, 4, 7]]).all()
    np.testing.assert_array_equal(found.joined[0], found.own[0])


@torch.no_grad()
def test_one_neighbour_is_enough(mixing: ScGPTSpatial, placed: anndata.AnnData) -> None:
    placed.obs["slide"] = ["pair", "pair", *placed.obs["slide"][2:]]
    found = mixing.expression(placed, GENES, niche=True, progress=False).niche
    np.testing.assert_allclose(found, slow(mixing, placed), rtol=2e-3)
    assert np.isfinite(found[:2]).all()


def test_the_order_of_cells_is_nothing(mixing: ScGPTSpatial, placed: anndata.AnnData) -> None:
    order = np.random.default_rng(1).permutation(60)
    found = mixing.expression(placed, GENES, niche=True, progress=False).niche
    permuted = mixing.expression(placed[order].copy(), GENES, niche=True, progress=False).niche
    np.testing.assert_allclose(permuted, found[order], rtol=1e-4)


def mix_of(kind: str) -> NeighbourMix:
    return NeighbourMix(ScGPTSpatialConfig(n_tokens=9, n_technologies=2, width=8, n_heads=2, neighbour_mix=kind))  # type: ignore[arg-type]


def test_weights_and_the_gradient_of_the_width() -> None:
    mix = mix_of("learnt").double()
    distances = torch.tensor([[0.5, 1.0, 2.0], [0.7, torch.inf, torch.inf], [torch.inf] * 3, [60.0, 61.0, 62.0]])
    technologies = torch.tensor([0, 1, 0, 0])
    weights = mix.weights(distances.double(), technologies)
    torch.testing.assert_close(weights.sum(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64))
    assert weights[1].tolist() == [1.0, 0.0, 0.0]
    expected = np.exp(-0.5 * (np.array([0.5, 1.0, 2.0]) / 1.3) ** 2)
    np.testing.assert_allclose(weights[0].detach().numpy(), expected / expected.sum(), rtol=1e-6)

    def mean_distance(log_width: torch.Tensor) -> torch.Tensor:
        mix.log_width.data.copy_(log_width)
        return (mix.weights(distances.double(), technologies)[0] * distances[0]).sum()

    at = mix.log_width.detach().clone()
    mean_distance(at).backward()
    step = torch.tensor([1e-6, 0.0], dtype=torch.float64)
    with torch.no_grad():
        slope = float((mean_distance(at + step) - mean_distance(at - step)) / 2e-6)
    gradient = mix.log_width.grad
    assert gradient is not None
    assert float(gradient[0]) == pytest.approx(slope, rel=1e-6)
    assert slope > 0, "a wider Gaussian looks further"
    assert float(gradient[1]) == 0.0, "of the technology that no cell here has"


def test_gradients_are_finite_where_there_is_no_neighbour_and_no_count() -> None:
    mix = mix_of("learnt")
    weights = mix.weights(torch.tensor([[torch.inf, torch.inf], [1.0, 1.0]]), torch.tensor([0, 1]))
    around = Surroundings.of_weights(
        weights, torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 3), torch.zeros(2),
        torch.tensor([True, True, False]),
    )  # fmt: skip
    numbers = torch.zeros(2, 3, requires_grad=True)
    found = mix(numbers, around, torch.tensor([1, 2, 3]), torch.tensor([0, 1]), torch.full((2, 3), -2.0))
    torch.testing.assert_close(found, torch.zeros(2, 3), msg="without a count the rate of the model is all there is")
    found.sum().backward()
    for name, parameter in mix.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name  # type: ignore[arg-type]
    assert float(numbers.grad[0, 2]) == 1.0, "a gene that is not measured is the decoder's alone"  # type: ignore[index]


def test_a_width_that_is_given_is_no_parameter() -> None:
    given, learnt = (dict(mix_of(kind).named_parameters()) for kind in ("given", "learnt"))
    assert set(learnt) - set(given) == {"log_width"}
    assert float(mix_of("given").widths(torch.tensor([1]))) == pytest.approx(1.3)


def test_a_saved_model_has_its_mix(mixing: ScGPTSpatial, placed: anndata.AnnData, tmp_path: object) -> None:
    mixing.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    again = load_model(tmp_path / "model")  # type: ignore[operator]
    assert again.config.neighbour_mix == "learnt"
    first, second = (model.expression(placed, GENES, niche=True, progress=False).niche for model in (mixing, again))
    np.testing.assert_array_equal(first, second)


def test_what_does_not_go_together_is_said() -> None:
    assert ScGPTSpatialConfig.published().neighbour_mix == "none"
    for options in ({"output": "bins"}, {"neighbourhood_decoder": False}):
        with pytest.raises(InputError, match="neighbour_mix = given joins counts with a decoder of neighbourhoods"):
            ScGPTSpatialConfig(neighbour_mix="given", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="neighbour_mix must be one of none, given, learnt, not 'both'"):
        ScGPTSpatialConfig(neighbour_mix="both")  # type: ignore[arg-type]

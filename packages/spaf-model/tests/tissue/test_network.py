import numpy as np
import pytest
import scipy.sparse as sp
import torch

from spaf_model.tissue import NetworkConfig, PearsonResiduals, closed_form, neighbour_graph, reach_of
from spaf_model.tissue.network import PlaceNetwork, TrainingSlide, _Draws, fit_network

SHORT = NetworkConfig(widths=(16,), steps=60, batch=64)


@pytest.fixture
def training(simulated):
    def make(n_cells=600, seed=0):
        slide = simulated(n_cells, seed=seed)
        places = slide.obsm["spatial"]
        reach = reach_of(places)
        residuals = PearsonResiduals(sp.csr_array(slide.X).astype(np.float32))
        return TrainingSlide(residuals, places, neighbour_graph(places, reach), reach)

    return make


@pytest.fixture
def closed(training):
    slide = training()
    return closed_form([slide.residuals], [slide.graph], n_place=6)


def test_begins_close_to_the_closed_form(training, closed):
    slide = training()
    torch.manual_seed(0)
    network = PlaceNetwork(torch.from_numpy(closed), (16,), 0.3).eval()
    linear = slide.residuals.project(closed)
    added = network.embed(slide.residuals) - linear
    assert 0 < np.square(added).mean() < 0.1 * np.square(linear).mean()


def test_learns_who_are_neighbours_from_several_slides(training, closed):
    trained = fit_network([training(), training(300, seed=1)], closed, SHORT)
    assert trained.loss < 0.98 * trained.chance
    assert not trained.network.training
    np.testing.assert_array_equal(trained.network.linear, closed)  # frozen


def test_equal_seeds_give_equal_bits_and_leave_the_random_state(training, closed):
    before = torch.get_rng_state()
    first, again = (fit_network([training()], closed, SHORT, seed=4).network.state_dict() for _ in range(2))
    other = fit_network([training()], closed, SHORT, seed=5).network.state_dict()
    assert torch.equal(before, torch.get_rng_state())
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
    assert not torch.equal(first["mlp.1.weight"], other["mlp.1.weight"])


def test_partners_are_neighbours_and_near_cells_are_no_negatives(training):
    slide = training()
    draws = _Draws(slide, SHORT)
    anchors, partners = draws.pairs(np.random.default_rng(0))
    assert (np.diff(anchors) > 0).all()
    assert slide.graph[anchors, partners].all()
    assert anchors.size > 32  # beside those drawn anywhere, those of patches
    near = draws.no_negatives(anchors, partners)
    distances = np.linalg.norm(slide.coordinates[anchors][:, None] - slide.coordinates[partners][None], axis=-1)
    expected = distances <= 45.0
    np.fill_diagonal(expected, False)
    np.testing.assert_array_equal(near, expected)


def test_steps_are_told(training, closed):
    steps = []
    fit_network([training()], closed, NetworkConfig(widths=(4,), steps=3, batch=16), on_step=steps.append)
    assert steps == [1, 1, 1]


def test_a_narrow_slide_gives_the_place_of_a_wide_one(training, closed):
    slide = training()
    counts = sp.csr_array(slide.residuals._counts)
    wide = sp.csr_array(sp.hstack([counts, sp.csr_array((counts.shape[0], 60), dtype=np.float32)], format="csr"))
    narrow = PearsonResiduals(wide)
    assert narrow.columns is not None
    torch.manual_seed(0)
    network = PlaceNetwork(torch.from_numpy(np.pad(closed, ((0, 60), (0, 0)))), (16,), 0.3).eval()
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.pad(narrow.rows(slice(None)), ((0, 0), (0, 60))))).numpy()
    np.testing.assert_allclose(network.embed(narrow), expected, atol=1e-5)
    trained = fit_network(
        [TrainingSlide(narrow, slide.coordinates, slide.graph, slide.reach)], network.linear.numpy(), SHORT
    )
    assert trained.loss < 0.98 * trained.chance


def test_shares_say_which_slide_a_step_takes(training, closed):
    slides = [training(), training(300, seed=1)]
    first, alone = (
        fit_network(each, closed, SHORT, shares=shares) for each, shares in ((slides, (1.0, 0.0)), (slides[:1], None))
    )
    assert first.loss == pytest.approx(alone.loss, rel=0.1)
    assert first.chance == pytest.approx(alone.chance, rel=0.05)

"""Baselines from the slide itself stand beside slow twins."""

import numpy as np
import pytest

from spaf_data import Distances
from spaf_model import TissueModel, load_model
from spaf_train.evaluation import NEIGHBOURS, OWN_PCA, TOWER, Z_PCA, PlacedCells, random_twin, slide_baselines
from spaf_train.evaluation.slide_baselines import slide_embeddings


def bands(seed, n=900, width=600.0):
    """Cells whose counts follow where they lie."""
    rng = np.random.default_rng(seed)
    places = rng.random((n, 2)) * width
    rates = 1.0 + 4.0 * (np.sin(places[:, :1] / 60.0 + np.arange(12)) + 1.0)
    return PlacedCells.of(rng.poisson(rates * 0.3), places, np.repeat(["a", "b"], [n // 2, n - n // 2]))


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(slide_baselines, "_TOWER_CELLS", 100)
    monkeypatch.setattr(slide_baselines, "_TOWER", slide_baselines.NetworkConfig(widths=(8,), steps=3, batch=32))
    judged, fitted = bands(0), bands(1, n=1800, width=900.0)
    return judged, fitted, slide_embeddings(judged, fitted, Distances())


def test_components_are_those_of_each_judged_slide(found):
    judged, _, embeddings = found
    assert set(embeddings) == {OWN_PCA, Z_PCA, NEIGHBOURS, TOWER}
    for name in "ab":
        rows = judged.slide == name
        counts = judged.counts[rows].toarray()
        logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
        logs -= logs.mean(axis=0)
        own = embeddings[OWN_PCA][rows]
        axes = np.linalg.svd(logs, full_matrices=False)[2][:11]  # one less than there are genes
        slow = logs @ axes.T
        np.testing.assert_allclose(own @ own.T, slow @ slow.T, atol=1e-6 * np.abs(slow @ slow.T).max())
        z = np.log1p(counts / counts.sum(axis=1, keepdims=True) * np.median(counts.sum(axis=1)))
        z = (z - z.mean(axis=0)) / z.std(axis=0)
        components = embeddings[Z_PCA][rows]
        cosines = np.corrcoef((components @ components.T).ravel(), (z @ z.T).ravel())[0, 1]
        assert cosines > 0.999


def test_what_is_learnt_of_places_is_learnt_on_training_cells(found):
    judged, fitted, embeddings = found
    moved = PlacedCells.of(judged.counts, judged.coordinates[::-1], judged.slide)
    again = slide_embeddings(moved, fitted, Distances())
    for name in embeddings:
        np.testing.assert_array_equal(again[name], embeddings[name])
    shuffled = PlacedCells.of(fitted.counts, np.random.default_rng(0).permutation(fitted.coordinates), fitted.slide)
    other = slide_embeddings(judged, shuffled, Distances())
    for name, is_same in ((OWN_PCA, True), (Z_PCA, True), (NEIGHBOURS, False), (TOWER, False)):
        equal = (
            name in other and other[name].shape == embeddings[name].shape and np.allclose(other[name], embeddings[name])
        )
        assert equal == is_same


def test_without_enough_cells_there_is_less(caplog):
    judged, fitted = bands(0), bands(1)
    assert set(slide_embeddings(judged, fitted, Distances())) == {OWN_PCA, Z_PCA, NEIGHBOURS}
    assert set(slide_embeddings(judged, fitted, Distances(), tower=False)) == {OWN_PCA, Z_PCA, NEIGHBOURS}
    apart = PlacedCells.of(fitted.counts, 1e3 * fitted.coordinates, fitted.slide)
    assert set(slide_embeddings(judged, apart, Distances())) == {OWN_PCA, Z_PCA}
    assert "no neighbours to learn from" in caplog.text
    few = bands(2, n=8)
    assert set(slide_embeddings(judged, few, Distances())) == {OWN_PCA}
    assert "The closed form of neighbours is left out" in caplog.text


def test_a_random_twin_has_the_shape_and_other_weights(separate, corpus, tmp_path):
    twin = random_twin(separate, seed=5)
    mine, theirs = separate.network.state_dict(), twin.network.state_dict()
    assert {name: tensor.shape for name, tensor in mine.items()} == {n: t.shape for n, t in theirs.items()}
    assert any(not np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_random_twin_of_a_fitted_model_keeps_the_spread_of_its_loadings(tmp_path):
    cells = slide_baselines._table(bands(3))
    TissueModel.fit(cells, "neighbours").save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model")
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    twin = random_twin(model, seed=1)
    for name, tensor in model.network.state_dict().items():
        assert np.array_equal(tensor, before[name])
        other = twin.network.state_dict()[name]
        assert not np.array_equal(tensor, other)
        assert float(other.std()) == pytest.approx(float(tensor.std()), rel=0.2)
    again = random_twin(model, seed=1).network.state_dict()
    assert all(np.array_equal(tensor, again[name]) for name, tensor in twin.network.state_dict().items())

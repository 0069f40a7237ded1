import numpy as np
import pytest

from spaf_model.scgpt_spatial import neighbourhood_weights


def slow(places: np.ndarray, slides: np.ndarray, k: int, weights: str, width: float, among: np.ndarray) -> np.ndarray:
    """A distance at a time."""
    expected = np.zeros((len(places), len(places)))
    for slide in set(slides.tolist()):
        nearest = {}
        for cell in np.flatnonzero(slides == slide):
            others = [other for other in np.flatnonzero((slides == slide) & among) if other != cell]
            distances = {other: float(np.linalg.norm(places[cell] - places[other])) for other in others}
            reach = sorted(distances.values())[:k][-1] * 1.001
            nearest[cell] = {other: distance for other, distance in distances.items() if distance <= reach}
        for cell, found in nearest.items():
            reach = width * float(np.mean(sorted(found.values())[:6]))
            weight = {
                other: 1.0 if weights == "uniform" else np.exp(-(distance**2) / (2 * reach**2))
                for other, distance in found.items()
            }
            for other, value in weight.items():
                expected[cell, other] = value / sum(weight.values())
    return expected


@pytest.mark.parametrize("weights", ["uniform", "gaussian"])
@pytest.mark.parametrize("width", [1.3, 0.4])
def test_agrees_with_the_slow_twin(weights: str, width: float) -> None:
    rng = np.random.default_rng(0)
    places, slides = rng.random((40, 2)), rng.integers(0, 2, 40)
    among = rng.random(40) < 0.8
    found = neighbourhood_weights(places, slides, n_neighbours=9, weights=weights, width=width, among=among)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.toarray(), slow(places, slides, 9, weights, width, among), atol=1e-6)


def test_cells_in_one_place_without_a_place_and_alone() -> None:
    places = np.array([[0.0, 0.0]] * 5 + [[np.nan, 0.0]] + [[1.0, 1.0]])
    slides = np.array([0, 0, 0, 0, 0, 0, 1])
    found = neighbourhood_weights(places, slides, n_neighbours=2).toarray()
    assert np.diag(found).tolist() == [0.0] * 7
    np.testing.assert_allclose(found[:5].sum(axis=1), 1.0, rtol=1e-6)
    assert (found[:5] > 0).sum(axis=1).tolist() == [4] * 5, "all are as near as each other"
    assert not found[5:].any()
    assert not found[:, 5:].any()


@pytest.mark.parametrize("n_neighbours", [6, 18, 30])
def test_order_of_spots_on_a_grid_is_nothing(n_neighbours: int) -> None:
    row, column = np.divmod(np.arange(400), 20)
    slides, order = np.zeros(400, dtype=np.int64), np.random.default_rng(0).permutation(400)
    for places in (np.c_[column, row] * 0.1, np.c_[column + 0.5 * (row % 2), row * np.sqrt(3) / 2] * 137.0):
        found = neighbourhood_weights(places, slides, n_neighbours=n_neighbours).toarray()
        permuted = neighbourhood_weights(places[order], slides, n_neighbours=n_neighbours).toarray()
        np.testing.assert_allclose(permuted, found[order][:, order], atol=1e-6)

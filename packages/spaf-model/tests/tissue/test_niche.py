import numpy as np
import pytest

from spaf_model.joint import unit
from spaf_model.tissue import PearsonResiduals, ZScores, niche_state
from spaf_model.tissue.components import principal_components


def test_equals_its_slow_twin(counts, slide):
    places = slide.obsm["spatial"]
    pearson, zscores = PearsonResiduals(counts), ZScores(counts)
    state = np.concatenate(
        [unit(one.project(principal_components([one], 30)[0])) for one in (zscores, pearson)], axis=1
    )
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    around = [np.flatnonzero(row <= np.sort(row)[7] * (1 + 1e-6)) for row in distances]  # with the cell itself
    once = np.stack([state[cells].mean(axis=0) for cells in around])
    twice = np.stack([once[cells].mean(axis=0) for cells in around])
    found = niche_state(pearson, zscores, places, k=7)
    np.testing.assert_allclose(found, np.concatenate([unit(once), unit(twice)], axis=1), atol=1e-4)


def test_unit_is_centred_and_of_size_one():
    part = unit(np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32))
    np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-6)
    assert np.square(part).sum(axis=1).mean() == pytest.approx(1, abs=1e-5)

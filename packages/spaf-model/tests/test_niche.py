"""The niche state of any family, against a slow twin."""

from pathlib import Path

import anndata
import numpy as np
import pytest

from spaf_model import InputError, SpatialFormer, averaging_weights
from spaf_model.cli import main
from spaf_model.joint import unit
from spaf_model.niche import niche_states
from spaf_model.spacing import lie_on_grid


def slow_twin(states, places, slides, k):
    """Means over each cell and its k nearest ones of its slide, once and twice, by all distances."""
    result = np.full((len(states), 2 * states.shape[1]), np.nan)
    for slide in set(slides.tolist()):
        cells = np.array(
            [cell for cell in range(len(states)) if slides[cell] == slide and np.isfinite(states[cell, 0])]
        )
        distances = np.linalg.norm(places[cells][:, None] - places[cells][None], axis=-1)
        around = np.argsort(distances, axis=1)[:, : k + 1]
        own = states[cells] - states[cells].mean(axis=0)
        own /= np.sqrt(np.square(own).sum(axis=1).mean())
        once = np.stack([own[near].mean(axis=0) for near in around])
        twice = np.stack([once[near].mean(axis=0) for near in around])
        result[cells] = np.concatenate([unit(once), unit(twice)], axis=1)
    return result


@pytest.mark.parametrize("grid", [False, True])
def test_equals_its_slow_twin(grid: bool) -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(2, 1, (90, 4)).astype(np.float32)
    states[[3, 50]] = np.nan
    slides = np.repeat([0, 1, 1], 30)
    places = np.stack(np.divmod(np.arange(90), 10), axis=1) * 100.0 if grid else rng.uniform(0, 300, (90, 2))
    assert lie_on_grid(places) is grid
    found = niche_states(states, places, slides)
    if not grid:  # on a grid many are as near as each other
        np.testing.assert_allclose(found, slow_twin(states, places, slides, 15), atol=1e-5)
    for slide in (0, 1):
        part = found[(slides == slide) & np.isfinite(states[:, 0])]
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-5)
        assert np.square(part).sum(axis=1).mean() == pytest.approx(2, abs=1e-4)
    assert np.isnan(found[[3, 50]]).all()


def grids(side: int = 20) -> list[np.ndarray]:
    """A square and a hexagonal grid, of coordinates that are rounded."""
    row, column = np.divmod(np.arange(side**2), side)
    return [
        np.stack([column, row], axis=1) * 0.1,
        np.stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2], axis=1) * 137.0,
    ]


@pytest.mark.parametrize(("places", "ring"), list(zip(grids(), (20, 18), strict=True)))
def test_order_of_spots_is_nothing(places: np.ndarray, ring: int) -> None:
    states = np.random.default_rng(3).normal(size=(400, 5)).astype(np.float32)
    order, one = np.random.default_rng(4).permutation(400), np.zeros(400, dtype=np.int64)
    assert np.diff(averaging_weights(places).indptr)[10 * 20 + 10] == ring + 1
    found = niche_states(states, places, one)
    np.testing.assert_allclose(niche_states(states[order], places[order], one), found[order], atol=1e-6)


def test_order_of_cells_at_whole_numbers_is_nothing() -> None:
    places = np.random.default_rng(5).integers(0, 60, (300, 2)).astype(float)
    order = np.random.default_rng(6).permutation(300)
    assert not lie_on_grid(places)
    weights = averaging_weights(places).toarray()
    np.testing.assert_array_equal(averaging_weights(places[order]).toarray(), weights[order][:, order])
    for row, place in zip(weights, places, strict=True):
        distances = np.linalg.norm(places - place, axis=1)
        np.testing.assert_array_equal(row > 0, distances <= np.sort(distances)[15] + 1e-9)


def test_slides_do_not_mix() -> None:
    rng = np.random.default_rng(1)
    states, places = rng.normal(size=(80, 3)).astype(np.float32), rng.uniform(0, 100, (80, 2))
    slides = np.repeat([0, 1], 40)
    together = niche_states(states, places, slides)
    apart = [niche_states(states[slides == slide], places[slides == slide], np.zeros(40, int)) for slide in (0, 1)]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-6)


def test_few_cells_at_one_place() -> None:
    states = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = niche_states(states, np.zeros((3, 2)), np.array([0, 0, 1]))
    assert found.shape == (3, 4)
    assert np.isfinite(found).all()


def test_every_family_has_it(model: SpatialFormer, adata: anndata.AnnData) -> None:
    rng = np.random.default_rng(2)
    adata.obsm["spatial"] = rng.uniform(0, 200, (adata.n_obs, 2))
    adata.obs["slide"] = np.repeat(["a", "b"], 30)
    model.embed(adata, niche=True)
    slides = np.repeat([0, 1], 30)
    wanted = slow_twin(adata.obsm["X_SpaF"], adata.obsm["spatial"], slides, 15)
    np.testing.assert_allclose(adata.obsm["X_SpaF_niche"], wanted, atol=1e-4)
    record = adata.uns["spaf"]["embed"]
    assert record["n_dimensions"] == {"niche": 64}
    assert record["parameters"]["niche"]
    model.embed(adata)
    assert "X_SpaF_niche" not in adata.obsm, "of an earlier embedding"


def test_it_needs_places(model: SpatialFormer, adata: anndata.AnnData) -> None:
    with pytest.raises(InputError, match=r"has no coordinates in obsm\['spatial'\]"):
        model.embed(adata, niche=True)
    adata.obsm["spatial"] = np.zeros((adata.n_obs, 2))
    adata.obsm["spatial"][7] = np.nan
    with pytest.raises(InputError, match=r"is not finite for 1 of 60 cells, first for cell 'cell7'; the niche state"):
        model.embed(adata, niche=True)
    assert "X_SpaF" not in adata.obsm
    model.embed(adata)


def test_command_line(
    model: SpatialFormer, adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "model")
    adata.write_h5ad(tmp_path / "without.h5ad")
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 200, (adata.n_obs, 2))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / "out.h5ad"
    for source, code in (("without.h5ad", 2), ("cells.h5ad", 0)):
        arguments = ["embed", str(tmp_path / source), "--model", str(tmp_path / "model"), "--niche", "-o", str(out)]
        monkeypatch.setattr("sys.argv", ["spaf-model", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        assert out.exists() is (code == 0)
    assert anndata.read_h5ad(out).obsm["X_SpaF_niche"].shape == (60, 64)

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from spaf_analysis import InputError
from spaf_analysis.cli import app
from spaf_analysis.integrate import completed_embedding, registered_pairs
from spaf_analysis.integrate.technologies import retrieval


@pytest.fixture(scope="module")
def pair() -> tuple[ad.AnnData, ad.AnnData]:
    """Spots of many genes and cells of few on one gradient of a tissue, seen by two technologies."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(0, 0.6, (2, 140))
    names = [f"G{gene}" for gene in range(140)]

    def seen(places: np.ndarray, genes: slice, rate: float) -> ad.AnnData:
        states = np.column_stack([np.sin(places[:, 0] / 150.0), np.cos(places[:, 1] / 120.0)])
        factor = rng.lognormal(0.0, 0.4, 140)
        counts = rng.poisson(np.exp(states @ loadings) * factor * rate)[:, genes].astype(np.float32)
        table = ad.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=names[genes]))
        table.obsm["spatial"] = places
        return table

    grid = np.stack(np.meshgrid(np.arange(50.0, 800, 70), np.arange(50.0, 800, 70)), axis=-1).reshape(-1, 2)
    spots = seen(grid, slice(0, 120), 8.0)
    cells = seen(rng.uniform(0, 820, (900, 2)), slice(80, 140), 1.0)
    spots.obs_names = [f"s{at}" for at in range(spots.n_obs)]
    cells.obs_names = [f"c{at}" for at in range(cells.n_obs)]
    return spots, cells


def test_completed_genes_find_the_place(pair):
    spots, cells = pair
    one, other = completed_embedding(spots, cells)
    assert one.shape[0] == spots.n_obs
    assert other.shape[0] == cells.n_obs
    files = {"file": ["s"] * spots.n_obs + ["c"] * cells.n_obs}
    table = ad.AnnData(
        obs=pd.DataFrame(files, index=[*spots.obs_names, *cells.obs_names]),
        obsm={
            "spatial": np.vstack([spots.obsm["spatial"], cells.obsm["spatial"]]),
            "X_both": np.vstack([one, other]),
            "X_noise": np.random.default_rng(0).normal(size=(spots.n_obs + cells.n_obs, 5)),
        },
    )  # fmt: skip
    found = registered_pairs(table, batch="file", keys={"both": "X_both", "noise": "X_noise"}).set_index("method")
    assert found.loc["both", "auroc"] > 0.9
    assert found.loc["noise", "auroc"] == pytest.approx(0.5, abs=0.1)
    assert (found["auroc_low"] < found["auroc"]).all()
    assert (found["auroc"] < found["auroc_high"]).all()
    assert found.loc["both", "top"] > 3 * found.loc["noise", "top"]
    far = table.copy()
    far.obsm["spatial"] = far.obsm["spatial"] + (far.obs["file"] == "s").to_numpy()[:, None] * 5e4
    with pytest.raises(InputError, match="0 spots have 3 cells within 60 um, and 20 are needed"):
        registered_pairs(far, batch="file", keys={"both": "X_both"})
    with pytest.raises(InputError, match="radius .* must be above 0 um, not 0"):
        registered_pairs(table, batch="file", keys={"both": "X_both"}, radius=0.0)


def test_retrieval_counts_what_is_less_alike():
    rng = np.random.default_rng(0)
    spots, around, places = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)), rng.uniform(0, 100, (30, 2))
    share, top = retrieval(spots, around, places, 20.0)
    one, other = spots - spots.mean(axis=0), around - around.mean(axis=0)
    for at in range(30):
        like = [a @ one[at] / np.linalg.norm(a) / np.linalg.norm(one[at]) for a in other]
        far = np.linalg.norm(places - places[at], axis=1) > 20.0
        assert share[at] == pytest.approx(np.mean(np.array(like)[far] < like[at]))
        assert top[at] == (np.sum(np.array(like) > like[at]) < 10)


def test_command_completes_and_judges_places(pair, tmp_path, monkeypatch):
    spots, cells = pair
    paths = [tmp_path / "spots.h5ad", tmp_path / "cells.h5ad"]
    for table, path in zip(pair, paths, strict=True):
        table.write_h5ad(path)
    words = ["integrate", *map(str, paths), "--no-harmony", "--replicates", "20", "--complete"]
    ran = CliRunner().invoke(app, [*words, "--registered", "60", "-o", str(tmp_path / "out.h5ad"), "--json"])
    assert ran.exit_code == 0, ran.output
    rows = {row["method"]: row for row in json.loads(ran.output)["registered"]}
    assert rows["embedding"]["auroc"] > 0.9
    assert set(rows) == {"embedding", "PCA", "scaled PCA", "HVG + PCA"}
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert written.obsm["X_SpaF"].shape[0] == spots.n_obs + cells.n_obs
    assert len(written.uns["integration"]["registered"]) == 4

    def fails(match: str, *more: str) -> None:
        with pytest.raises(InputError, match=match):
            CliRunner().invoke(app, more, catch_exceptions=False)

    fails("one table, in which what registered places say", *words, "--registered", "60", "-o", str(tmp_path / "a.csv"))
    fails("--complete is for two files", "integrate", str(paths[0]), "--complete", "--batch", "x", "--json")
    fails("--registered is for two files", "integrate", str(paths[0]), "--registered", "6", "--batch", "x", "--json")
    with monkeypatch.context() as patched:  # before the work, which takes minutes
        patched.setattr("spaf_analysis.integrate.tool.integrate", lambda *_, **__: pytest.fail("was begun"))
        fails("0 spots have 3 cells within 0.001 um", *words, "--registered", "0.001", "--json")
    few = cells[:, :10].copy()
    with pytest.raises(InputError, match="the tables share 10 genes; at least 20"):
        completed_embedding(spots, few)

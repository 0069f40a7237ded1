"""A gene taken from the cells around each cell."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spaf_analysis import InputError, tl
from spaf_model import ScGPTSpatial, ScGPTSpatialConfig, Vocabulary, neighbourhood_weights


@pytest.fixture(scope="module")
def make_model():
    def make(genes, **options):
        vocabulary = Vocabulary.build(genes, scale=np.ones(len(genes)), assay=["xenium"], unknown=())
        config = ScGPTSpatialConfig(width=16, n_layers=1, n_heads=2, **options)
        model = ScGPTSpatial(config, vocabulary, seed=1)
        model.network.eval()
        return model

    return make


@pytest.fixture
def cells(make_tissue):
    adata = make_tissue(0, n_cells=150)
    adata.obs["assay"] = "xenium"
    return adata


def test_only_neighbours_lose_the_gene(cells, make_model):
    model = make_model(list(cells.var_names))
    tl.perturb_neighbours(cells, model, ["GENE3"], targets=["GENE4", "GENE5"], n_controls=2, cell_type="type")
    stored = cells.uns["neighbour_genes"]
    without = cells.copy()
    counts = without.X.toarray()
    counts[:, 3] = 0
    without.X = counts
    weights = neighbourhood_weights(cells.obsm["spatial"], np.zeros(150, dtype=np.int64), n_neighbours=10)
    around = []
    for table in (cells, without):
        table = table.copy()
        model.embed(table)
        around.append(weights @ table.obsm["X_SpaF"])
    moved = np.linalg.norm(around[1] - around[0], axis=1)
    size = np.sqrt(((around[0] - around[0].mean(axis=0)) ** 2).sum(axis=1).mean())
    has = (weights @ (cells.X.toarray()[:, 3] > 0)) > 0
    rows = stored["table"].set_index("cell_type")
    assert rows.loc["all", "n_cells"] == has.sum()
    assert rows.loc["all", "state_change"] == pytest.approx((moved / size)[has].mean(), rel=1e-3)
    of_a = has & (cells.obs["type"] == "A").to_numpy()
    assert rows.loc["A", "state_change"] == pytest.approx((moved / size)[of_a].mean(), rel=1e-3)
    niche = [model.expression(table, ["GENE4", "GENE5"], niche=True, raw=True).niche for table in (cells, without)]
    np.testing.assert_allclose(stored["expression"]["change"], (niche[1] - niche[0])[has].mean(axis=0), atol=1e-5)
    assert stored["expression"]["control_rank"].between(1 / 3, 1).all()
    assert stored["reason"] == ""


def test_a_model_without_a_decoder_of_neighbourhoods_gives_states(cells, make_model):
    model = make_model(list(cells.var_names), neighbourhood_decoder=False)
    tl.perturb_neighbours(cells, model, ["GENE3"], n_controls=2)
    stored = cells.uns["neighbour_genes"]
    assert stored["reason"] == "the model has no decoder of neighbourhoods"
    assert len(stored["expression"]) == 0
    assert np.isfinite(stored["table"]["state_change"]).all()


@pytest.mark.parametrize(
    ("genes", "options", "words"),
    [
        ([], {}, "name the genes to take from the neighbours"),
        (["NOPE"], {}, "the table has no gene 'NOPE'"),
        (["OTHER"], {}, "the model lacks 1 of the genes asked for, such as 'OTHER'"),
        (["GENE1"], {"n_controls": 100}, "28 other genes are detected, and 100 are needed"),
    ],
)
def test_wrong_input_is_one_sentence(cells, make_model, genes, options, words):
    model = make_model(list(cells.var_names[:-1]))
    cells.var_names = [*cells.var_names[:-1], "OTHER"]
    with pytest.raises(InputError, match=words):
        tl.perturb_neighbours(cells, model, genes, **options)


def test_cells_on_disk_and_a_layer_give_what_x_in_memory_gives(cells, make_model, tmp_path):
    model = make_model(list(cells.var_names))
    cells.layers["counts"] = cells.X.copy()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    log = cells.copy()
    log.X = np.log1p(log.X)
    options = {"targets": ["GENE4"], "n_controls": 2}
    for table, layer in ((cells, None), (on_disk, None), (log, "counts")):
        tl.perturb_neighbours(table, model, ["GENE3"], **options, layer=layer)
    for table in (on_disk, log):
        for part in ("table", "expression"):
            expected = cells.uns["neighbour_genes"][part]
            pd.testing.assert_frame_equal(table.uns["neighbour_genes"][part], expected)
    on_disk.file.close()
    with pytest.raises(InputError, match=r"the table: The values look log-normalised"):
        tl.perturb_neighbours(log, model, ["GENE3"], **options)

"""Every tool and figure takes a SpatialData where it takes an AnnData."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from scipy import sparse
from spatialdata import SpatialData

from spaf_analysis import InputError, enriched_gene_pairs, marker_genes, pl, spatially_variable_genes, tl


@pytest.fixture
def store(tissue):
    """A SpatialData with two tables, the second of which is the tissue with co-localised gene pairs."""
    together = np.random.default_rng(0).random((tissue.n_obs, 2)) < [0.4, 0.1]
    tissue.obsm["colocalization"] = sparse.csr_matrix(together.astype(np.int8))
    pairs = pd.DataFrame({"gene_a": ["LEFT1", "LEFT1"], "gene_b": ["LEFT2", "BOTH1"]})
    tissue.uns["colocalization"] = {"pairs": pairs, "method": "communities", "parameters": {}}
    return SpatialData(tables={"other": tissue[:5].copy(), "cells": tissue})


def test_every_tool_writes_into_the_table_that_is_named(store):
    tl.cluster(store, table_key="cells", resolution=0.2)
    tl.umap(store, table_key="cells")
    tl.spatial_genes(store, table_key="cells")
    tl.gene_pairs(store, table_key="cells", min_cells=1)
    tl.cell_pairs(store, table_key="cells", n_replicates=5, max_pairs=50)
    tl.niches(store, table_key="cells", n_domains=2)
    tl.type_pairs(store, table_key="cells", cell_type="type")
    pairs = pd.DataFrame({"ligand": ["LEFT1"], "receptor": ["LEFT2"]})
    tl.ligrec(store, table_key="cells", cell_type="type", resource=pairs, tile=150.0, n_matched=3)
    assert pl.ligrec(store, table_key="cells").get_yticklabels()[0].get_text() == "LEFT1 – LEFT2"
    tl.integrate(store, table_key="cells", batch="split", label="type", use_harmony=False, n_replicates=5)
    table = store.tables["cells"]
    assert "spaf_cluster" in table.obs
    assert np.isfinite(table.obsm["X_SpaF_umap"]).all()
    assert table.var["morans_i"].idxmax() in {"LEFT1", "LEFT2", "RIGHT1", "RIGHT2"}
    assert table.uns["gene_pairs"]["n_tested"] == 2
    assert len(table.uns["cell_pairs"]["scores"])
    assert "spaf_cluster" not in store.tables["other"].obs
    assert table.obs["spaf_niche"].nunique() == 2
    assert "X_SpaF_niche" in table.obsm
    assert len(marker_genes(store, table_key="cells")) == table.obs["spaf_cluster"].nunique()
    assert len(spatially_variable_genes(store, table_key="cells"))
    assert enriched_gene_pairs(store, table_key="cells").n_tested == 2
    for drawn in (
        pl.clusters(store, table_key="cells"),
        pl.umap(store, table_key="cells"),
        pl.niches(store, table_key="cells"),
        pl.type_pairs(store, table_key="cells"),
        pl.integration(store, table_key="cells"),
        pl.niche_composition(store, "type", table_key="cells"),
        pl.spatial_gene(store, "LEFT1", table_key="cells"),
        *pl.cell_pairs(store, table_key="cells"),
    ):
        assert isinstance(drawn, Axes)
        assert drawn.figure is not None


def test_a_table_that_is_not_there_is_named(store, tissue):
    with pytest.raises(InputError, match="which table of the SpatialData to use; it has: cells, other|other, cells"):
        tl.cluster(store)
    with pytest.raises(InputError, match="has no table 'none'"):
        tl.cell_pairs(store, table_key="none")
    with pytest.raises(InputError, match="an AnnData was given"):
        pl.clusters(tissue, table_key="cells")


def test_what_was_not_computed_is_said_by_name(tissue):
    for draw, what in (
        (pl.cell_pairs, "uns has no judged cell pairs 'cell_pairs'"),
        (pl.gene_pairs, "uns has no gene pairs 'gene_pairs'"),
        (pl.clusters, "obs has no column 'spaf_cluster'"),
        (pl.umap, "obsm has no map 'X_SpaF_umap'"),
    ):
        with pytest.raises(InputError, match=what):
            draw(tissue)
    with pytest.raises(InputError, match="the table has no gene 'LEFT9'; near names: LEFT1, LEFT2"):
        pl.spatial_gene(tissue, "LEFT9")
    tissue.obs["slide"] = np.where(np.arange(tissue.n_obs) < 100, "a", "b")
    with pytest.raises(InputError, match="which of 2 slides to draw; there are: a, b"):
        pl.spatial_gene(tissue, "LEFT1")
    with pytest.raises(InputError, match="there is no slide 'c'; there are: a, b"):
        pl.spatial_gene(tissue, "LEFT1", slide="c")
    assert len(pl.spatial_gene(tissue, "LEFT1", slide="a").collections[0].get_offsets()) == 100

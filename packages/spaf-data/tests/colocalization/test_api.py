from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from spaf_data import InputError, Transcripts, colocalize
from spaf_data.colocalization import gene_pair_table


def table_of(cells: np.ndarray, genes: list[str]) -> AnnData:
    shape = (len(cells), len(genes))
    counts = sparse.csr_matrix(shape, dtype=np.float32)
    return AnnData(counts, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes))


def named_pairs(adata: AnnData, cell: str) -> set[frozenset[str]]:
    pairs = adata.uns["colocalization"]["pairs"].to_numpy()
    row = adata.obsm["colocalization"][adata.obs_names.get_loc(cell)]
    return {frozenset(pairs[column]) for column in row.indices}


@pytest.mark.parametrize("method", ["communities", "enrichment"])
def test_written_and_read_back(slide: Transcripts, method: str, tmp_path: Path) -> None:
    adata = table_of(slide.cells, slide.genes)
    colocalize(adata, slide, method=method)
    found = adata.obsm["colocalization"]
    record = adata.uns["colocalization"]
    assert found.shape == (slide.n_cells, len(record["pairs"]))
    assert found.nnz > 100
    assert found.has_sorted_indices
    assert found.dtype == (np.int8 if method == "communities" else np.float32)
    assert record["method"] == method
    assert record["parameters"]["dimensions"] == 3
    position = {gene: k for k, gene in enumerate(slide.genes)}
    codes = record["pairs"].map(position.get).to_numpy()
    assert (codes[:, 0] < codes[:, 1]).all()
    assert (np.diff(codes[:, 0] * 1000 + codes[:, 1]) > 0).all()
    adata.write_h5ad(tmp_path / "slide.h5ad")
    again = anndata.read_h5ad(tmp_path / "slide.h5ad")
    assert (again.obsm["colocalization"] != found).nnz == 0
    assert again.uns["colocalization"]["pairs"].to_numpy().tolist() == record["pairs"].to_numpy().tolist()
    pair_table = gene_pair_table(again)
    assert pair_table.shape == found.shape
    assert pair_table.var_names[0] == "|".join(record["pairs"].iloc[0])
    if method == "enrichment":
        assert list(record["statistics"]["gene_a"]) == list(record["pairs"]["gene_a"])
        assert np.allclose(pair_table.var["fdr"], record["statistics"]["fdr"])
        assert record["parameters"]["compartments"] is False
        assert "min_expected" not in record["parameters"]
        account = again.uns["colocalization"]["account"]
        assert account["pairs"] == 15 * 14 // 2 == account["too_few_expected"] + account["tested"]
        assert account["tested"] == account["unseen"] + account["seen"]
        assert account["seen"] == len(record["statistics"])
        assert account["least_expected"] <= record["statistics"]["expected"].min()
        assert "expected" in account["reason"]
        colocalize(again, slide, method=method, min_expected=500.0)
        assert again.uns["colocalization"]["parameters"]["min_expected"] == 500.0
        assert again.uns["colocalization"]["account"]["least_expected"] >= 500.0
    else:
        assert set(found.data) == {1}
        assert (found.sum(axis=0) > 0).all()


def test_cells_and_genes_are_matched_by_name(slide: Transcripts) -> None:
    whole = table_of(slide.cells, slide.genes)
    colocalize(whole, slide)
    cells, genes = slide.cells[[7, 2, 20]], [*slide.genes[9:2:-1], "unseen"]
    part = table_of(cells, genes)
    colocalize(part, slide)
    n = 0
    for cell in cells:
        expected = {pair for pair in named_pairs(whole, cell) if pair <= set(genes)}
        assert named_pairs(part, cell) == expected
        n += len(expected)
    assert n > 3


def test_two_dimensions(slide: Transcripts) -> None:
    adata, flat = table_of(slide.cells, slide.genes), table_of(slide.cells, slide.genes)
    colocalize(adata, slide, dimensions=2)
    colocalize(flat, replace(slide, z=np.full_like(slide.z, 3.0)))
    assert flat.uns["colocalization"]["parameters"]["dimensions"] == 2
    assert adata.uns["colocalization"]["parameters"]["dimensions"] == 2
    for cell in slide.cells:
        assert named_pairs(adata, cell) == named_pairs(flat, cell)
    nan = replace(slide, z=np.full_like(slide.z, np.nan))
    colocalize(adata, nan)
    assert adata.uns["colocalization"]["parameters"]["dimensions"] == 2
    with pytest.raises(InputError, match="use dimensions=2"):
        colocalize(adata, nan, dimensions=3)


def test_key_added(slide: Transcripts) -> None:
    adata = table_of(slide.cells, slide.genes)
    colocalize(adata, slide, key_added="near")
    assert list(adata.obsm) == ["near"]
    assert gene_pair_table(adata, key="near").n_obs == slide.n_cells
    with pytest.raises(InputError, match="obsm has: near"):
        gene_pair_table(adata)


def test_bad_input(slide: Transcripts) -> None:
    adata = table_of(slide.cells, slide.genes)
    with pytest.raises(InputError, match="the choices are communities, enrichment"):
        colocalize(adata, slide, method="louvain")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dimensions is 4"):
        colocalize(adata, slide, dimensions=4)
    with pytest.raises(InputError, match="1 of 2 cells have no transcripts, the first is 'lost'"):
        colocalize(table_of(np.array([slide.cells[0], "lost"]), slide.genes), slide)
    with pytest.raises(InputError, match="share no gene"):
        colocalize(table_of(slide.cells, ["X", "Y"]), slide)
    with pytest.raises(InputError, match="x coordinates that are NaN"):
        colocalize(adata, replace(slide, x=np.where(np.arange(len(slide.x)) == 5, np.nan, slide.x)))
    assert not adata.obsm
    assert not adata.uns


@pytest.mark.parametrize("method", ["communities", "enrichment"])
def test_a_few_cells_at_a_time_and_how_far_it_is(
    slide: Transcripts, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = table_of(slide.cells[::-1], slide.genes), table_of(slide.cells[::-1], slide.genes)
    colocalize(whole, slide, method=method)
    monkeypatch.setattr("spaf_data.colocalization.api.TRANSCRIPTS_AT_A_TIME", 500)
    monkeypatch.setattr("spaf_data._batches._TRANSCRIPTS_A_BATCH", 300)
    fractions: list[float] = []
    colocalize(parts, slide, method=method, progress=fractions.append)
    assert (whole.obsm["colocalization"] != parts.obsm["colocalization"]).nnz == 0
    pd.testing.assert_frame_equal(whole.uns["colocalization"]["pairs"], parts.uns["colocalization"]["pairs"])
    assert len(fractions) > 5
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_no_matrix_of_an_earlier_call_stays_beside_new_pairs(slide: Transcripts) -> None:
    adata = table_of(slide.cells, slide.genes)
    colocalize(adata, slide)
    colocalize(adata, slide, method="enrichment", cell_scores=False)
    assert "colocalization" not in adata.obsm
    assert adata.uns["colocalization"]["method"] == "enrichment"
    with pytest.raises(InputError, match="no co-localised gene pairs"):
        gene_pair_table(adata)


def test_matrix_and_pairs_of_two_calls_are_no_table(slide: Transcripts) -> None:
    adata = table_of(slide.cells, slide.genes)
    colocalize(adata, slide)
    adata.uns["colocalization"]["pairs"] = adata.uns["colocalization"]["pairs"].iloc[:-1]
    with pytest.raises(InputError, match="columns, but uns 'colocalization' names .* gene pairs"):
        gene_pair_table(adata)

"""What models expect of genes."""

import anndata
import numpy as np
import pytest
import torch

from spaf_model import InputError, PredictsExpression, ReadingOptions, asked
from spaf_model.scgpt_spatial import NicheExpression, ScGPTSpatial, neighbourhood_weights
from spaf_model.scgpt_spatial.expression import counts_of_bins

GENES = ["GENE3", "ENSG00000000017", "GENE30"]
TOKENS_AFTER = [3, 17, 30]


@pytest.fixture
def placed(adata: anndata.AnnData) -> anndata.AnnData:
    dense = adata.X.toarray()
    dense[4] = 0
    adata.X = dense
    adata.obsm["spatial"] = np.random.default_rng(0).random((60, 2))
    adata.obs["slide"] = ["a", "b"] * 30
    return adata


def expected_numbers(model: ScGPTSpatial, states: np.ndarray, adata: anndata.AnnData, niche: bool) -> np.ndarray:
    """Numbers of the decoders, by their formulas."""
    network = model.network
    decoder = network.neighbourhood_decoder if niche else network.cell_decoder
    ids = torch.from_numpy(model.vocabulary.gene_token_ids[TOKENS_AFTER])
    assert network.technologies is not None
    row = 2  # xenium
    beside = network.technologies(torch.tensor([row])).expand(len(states), -1)
    queries = torch.sigmoid(decoder.query(network.genes(ids)))  # type: ignore[union-attr]
    found = torch.cat([torch.from_numpy(states), beside], dim=1) @ decoder.match(queries).t()  # type: ignore[union-attr]
    return found.detach().numpy()


def test_expression_is_what_the_decoder_says(model: ScGPTSpatial, placed: anndata.AnnData) -> None:
    assert asked(model, PredictsExpression) is model
    model.embed(placed)
    there = np.isfinite(placed.obsm["X_SpaF"]).all(axis=1)
    numbers = expected_numbers(model, placed.obsm["X_SpaF"], placed, niche=False)
    raw = model.expression(placed, GENES, raw=True)
    np.testing.assert_allclose(raw[there], numbers[there], atol=1e-4)
    assert np.isnan(raw[~there]).all()
    counts = model.expression(placed, GENES)
    assert np.isnan(counts[~there]).all()
    assert (counts[there] >= 0).all()
    if model.network.count_output is not None:
        output, ids = model.network.count_output, model.vocabulary.gene_token_ids[TOKENS_AFTER]
        totals = np.asarray(placed.X.sum(axis=1))[there]
        means = numbers[there] + output.log_rate.detach().numpy()[ids] + np.log(totals)[:, None]
        assert output.technology_scale is not None
        np.testing.assert_allclose(
            counts[there], np.exp(means + output.technology_scale.detach().numpy()[2]), rtol=1e-3
        )
    assert list(placed.obsm) == ["spatial", "X_SpaF"]


def test_the_niche_is_kept_apart(model: ScGPTSpatial, placed: anndata.AnnData) -> None:
    model.embed(placed)
    states = placed.obsm["X_SpaF"]
    there = np.isfinite(states).all(axis=1)
    slides = np.array([0, 1] * 30)
    weights = neighbourhood_weights(
        placed.obsm["spatial"], slides, n_neighbours=model.config.n_neighbours,
        weights=model.config.neighbour_weights, among=there,
    )  # fmt: skip
    around = (weights @ np.nan_to_num(states)).astype(np.float32)
    found = model.expression(placed, GENES, niche=True, gate=0.25, raw=True)
    assert isinstance(found, NicheExpression)
    np.testing.assert_allclose(found.niche, expected_numbers(model, around, placed, niche=True), atol=1e-4)
    np.testing.assert_allclose(found.own[there], model.expression(placed, GENES, raw=True)[there])
    np.testing.assert_allclose(found.joined[there], 0.75 * found.own[there] + 0.25 * found.niche[there], rtol=1e-5)
    in_counts = model.expression(placed, GENES, niche=True)
    assert in_counts.gate == 0.0
    np.testing.assert_array_equal(in_counts.joined[there], in_counts.own[there])
    # A cell without a gene has no bins, and no total, that a number could be read by.
    assert np.isnan(in_counts.niche[~there]).all()
    assert np.isfinite(found.niche).all()
    placed.obsm["spatial"][7] = np.nan
    lone = model.expression(placed, GENES, niche=True, gate=0.5)
    assert np.isnan(lone.niche[7]).all()
    np.testing.assert_array_equal(lone.joined[7], lone.own[7])


def test_what_cannot_be_asked_is_one_sentence(model: ScGPTSpatial, placed: anndata.AnnData) -> None:
    cases: dict[str, tuple[object, dict[str, object]]] = {
        "The model knows no gene A, B": (["A", "GENE1", "B"], {}),
        "knows no gene N0, N1, N2, N3, N4 and 3 more": ([f"N{number}" for number in range(8)], {}),
        "Gene 'GENE1' is asked for more than once": (["GENE1", "GENE1"], {}),
        "Gene 'ENSG00000000001' is asked for more than once": (["GENE1", "ENSG00000000001"], {}),
        "genes is a list of names, not 'GENE1'": ("GENE1", {}),
        "gate must be from 0 to 1, not 2": (GENES, {"gate": 2}),
        "The model knows no assay 'cosmx'": (GENES, {"assay": "cosmx"}),
    }
    for sentence, (genes, options) in cases.items():
        with pytest.raises(InputError, match=sentence):
            model.expression(placed, genes, **options)  # type: ignore[call-overload]
    del placed.obsm["spatial"]
    with pytest.raises(InputError, match="niche=True needs the places of the cells"):
        model.expression(placed, GENES, niche=True)
    del placed.obs["assay"]
    with pytest.raises(InputError, match="The assay of the cells is not known: obs has no column 'assay'; give assay="):
        model.expression(placed, GENES)


def test_bins_are_read_as_counts(model: ScGPTSpatial, placed: anndata.AnnData) -> None:
    cells = model._source(placed, ReadingOptions()).read()
    scale = model.vocabulary.scale
    cell = 0
    entries = slice(cells.indptr[cell], cells.indptr[cell + 1])
    values = np.sort(cells.counts[entries] / scale[cells.tokens[entries]])
    numbers = np.full((60, 5), np.nan, dtype=np.float32)
    numbers[cell] = [-3.0, 0.5, 1.0, 50.0, 80.0]
    found = counts_of_bins(numbers, cells, scale, np.full(5, 2.0, np.float32), 51)
    np.testing.assert_allclose(
        found[cell], 2 * np.array([0, values[0] / 2, values[0], values[-1], values[-1]]), rtol=1e-5
    )
    assert np.isnan(found[1:]).all()
    # Values at their own places come back.
    places = 1 + 49 * np.arange(values.size) / (values.size - 1)
    numbers = np.full((60, values.size), 1.0, dtype=np.float32)
    numbers[cell] = places
    back = counts_of_bins(numbers, cells, scale, np.ones(values.size, np.float32), 51)
    np.testing.assert_allclose(back[cell], values, rtol=1e-4)

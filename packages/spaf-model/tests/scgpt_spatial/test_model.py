"""The family behind the common face."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from spaf_model import CellSource, InputError, ReadingOptions, Vocabulary, load_model
from spaf_model.scgpt_spatial import ExpertMixture, RoutingReport, ScGPTSpatial, ScGPTSpatialConfig

Run = Callable[..., int]


def test_is_saved_loaded_and_embeds(model: ScGPTSpatial, adata: anndata.AnnData, tmp_path: Path) -> None:
    model.embed(adata)
    whole = adata.obsm["X_SpaF"]
    assert whole.shape == (60, 32)
    assert np.isfinite(whole).all()
    model.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert isinstance(again, ScGPTSpatial)
    assert again.config == model.config
    for options in ({"token_budget": 40}, {"kernel": "explicit"}, {"kernel": "sdpa"}):
        again.embed(adata, key_added="again", **options)  # type: ignore[arg-type]
        np.testing.assert_allclose(adata.obsm["again"], whole, atol=2e-5)
    again.embed(adata, key_added="twice")
    model.embed(adata, key_added="once")
    np.testing.assert_array_equal(adata.obsm["once"], whole)
    np.testing.assert_array_equal(adata.obsm["twice"], whole)


def test_the_order_of_cells_and_genes_does_not_matter(model: ScGPTSpatial, adata: anndata.AnnData) -> None:
    model.embed(adata)
    rng = np.random.default_rng(0)
    cells, genes = rng.permutation(60), rng.permutation(40)
    other = adata[cells][:, genes].copy()
    model.embed(other)
    np.testing.assert_allclose(other.obsm["X_SpaF"], adata.obsm["X_SpaF"][cells], atol=2e-5)


def test_embedding_needs_no_context(model: ScGPTSpatial, adata: anndata.AnnData) -> None:
    model.embed(adata)
    plain = anndata.AnnData(adata.X, var=adata.var)
    model.embed(plain)
    np.testing.assert_array_equal(plain.obsm["X_SpaF"], adata.obsm["X_SpaF"])
    plain.obs["assay"] = "a technology of tomorrow"
    model.embed(plain)
    with pytest.raises(InputError, match="The model knows no assay 'cosmx'; it knows: merfish, visium, xenium"):
        model.embed(plain, assay="cosmx")


def test_half_precision_and_cells_without_a_gene(model: ScGPTSpatial, adata: anndata.AnnData) -> None:
    dense = adata.X.toarray()
    dense[[3, 8]] = 0
    adata.X = dense
    model.embed(adata)
    whole = adata.obsm["X_SpaF"]
    assert np.flatnonzero(np.isnan(whole).any(axis=1)).tolist() == [3, 8]
    model.embed(adata, precision="bf16", key_added="half")
    there = np.isfinite(whole).all(axis=1)
    one, other = (torch.from_numpy(found[there]) for found in (whole, adata.obsm["half"]))
    assert torch.nn.functional.cosine_similarity(one, other).min() > 0.99


def test_methods(model: ScGPTSpatial, adata: anndata.AnnData) -> None:
    for method in model.methods:
        model.embed(adata, method=method, key_added=method)
    assert np.abs(adata.obsm["gene"] - adata.obsm["value"]).max() > 1e-4
    with pytest.raises(InputError, match="method must be one of cls, gene, value"):
        model.embed(adata, method="mean")


def test_in_the_commands(model: ScGPTSpatial, slide: Path, run: Run, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    assert run("embed", slide, "-m", tmp_path / "model", "-o", tmp_path / "out.h5ad", "--kernel", "sdpa") == 0
    adata = anndata.read_h5ad(slide)
    model.embed(adata)
    np.testing.assert_allclose(anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_SpaF"], adata.obsm["X_SpaF"], atol=2e-5)


def test_configuration_and_vocabulary_must_fit(vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="config.n_technologies is 4, but the vocabulary has 3"):
        ScGPTSpatial(ScGPTSpatialConfig(n_technologies=4), vocabulary)
    with pytest.raises(InputError, match="config.n_tokens is 5, but the vocabulary has"):
        ScGPTSpatial(dataclasses.replace(ScGPTSpatialConfig(), n_tokens=5), vocabulary)
    with pytest.raises(InputError, match="no special token 'pad'"):
        ScGPTSpatial(ScGPTSpatialConfig(), Vocabulary.of_genes(["A"]))


def test_the_report_of_routes_counts_every_gene(model: ScGPTSpatial, adata: anndata.AnnData) -> None:
    decoder = model.network.token_decoder
    if not isinstance(decoder, ExpertMixture):
        with pytest.raises(InputError, match="The model has one expert"):
            model.routing_report(adata)
        return
    adata.obs["assay"] = ["visium", "xenium"] * 30
    report = model.routing_report(adata, token_budget=50)
    cells = model.tokeniser(CellSource(adata, model.vocabulary, ReadingOptions(), needed_context=("assay",)).read())
    counts = np.zeros((3, model.config.n_experts))
    with torch.no_grad():
        for cell in np.flatnonzero(cells.lengths):
            batch = cells.batch(np.array([cell]))
            is_gene = torch.arange(batch.n_known)[None] > 0
            tokens = model.network.tokens_to_decode(model.network.encode(batch), batch, is_gene)
            for expert in decoder.routes(tokens).chosen.flatten().tolist():
                counts[1 + cell % 2, expert] += 1
    np.testing.assert_allclose(report.load, counts.sum(axis=0) / counts.sum())
    np.testing.assert_allclose(report.by_technology[1:], counts[1:] / counts[1:].sum(axis=1, keepdims=True))
    assert np.isnan(report.by_technology[0]).all()
    del adata.obs["assay"]
    with pytest.raises(InputError, match="The assay of the cells is not known"):
        model.routing_report(adata)


def test_what_was_measured_of_routes_is_in_info(
    model: ScGPTSpatial, adata: anndata.AnnData, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = RoutingReport.of_counts(np.array([[3, 1]]), ["xenium"])
    model.config = dataclasses.replace(model.config, routing_record=report.as_dict())
    model.save_pretrained(tmp_path / "model")
    assert run("info", tmp_path / "model", "--json") == 0
    assert json.loads(capsys.readouterr().out)["config"]["routing_record"]["load"] == [0.75, 0.25]
    assert run("info", tmp_path / "model") == 0
    assert "mutual_information_bits" in capsys.readouterr().out
    with pytest.raises(InputError, match="routing_record must be a table or None"):
        ScGPTSpatialConfig(routing_record=3)  # type: ignore[arg-type]

import dataclasses
import logging
from pathlib import Path
from unittest.mock import Mock

import anndata
import numpy as np
import pytest
import torch

import spaf_model
from spaf_model import InputError, SpatialFormer, SpatialFormerConfig, Vocabulary


def test_random_weights_follow_the_seed_alone(config: SpatialFormerConfig, vocabulary: Vocabulary) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second, other = (SpatialFormer(config, vocabulary, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [model.network.state_dict()["layers.0.attention.mixer.qkv.weight"] for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_number_of_tokens_comes_from_the_vocabulary(config: SpatialFormerConfig, vocabulary: Vocabulary) -> None:
    assert SpatialFormer(config, vocabulary).config.n_tokens == vocabulary.n_tokens
    with pytest.raises(InputError, match=f"n_tokens is 7, but the vocabulary has {vocabulary.n_tokens}"):
        SpatialFormer(dataclasses.replace(config, n_tokens=7), vocabulary)


def test_a_vocabulary_without_a_kind_of_context_is_refused(config: SpatialFormerConfig, vocabulary: Vocabulary) -> None:
    context = vocabulary.context | {"tissue": {}}
    bare = Vocabulary(vocabulary.tokens, special=vocabulary.special, context=context, scale=vocabulary.scale)
    with pytest.raises(InputError, match="reads the tissue of a cell, and the vocabulary names none"):
        SpatialFormer(config, bare)


def test_embed_writes_embedding_and_record(model: SpatialFormer, adata: anndata.AnnData) -> None:
    adata.uns["spaf"] = {"account": {"read": 5}}
    counts = adata.X.copy()
    model.embed(adata)
    assert adata.obsm["X_SpaF"].shape == (60, 32)
    assert adata.obsm["X_SpaF"].dtype == np.float32
    assert np.isfinite(adata.obsm["X_SpaF"]).all()
    assert (counts != adata.X).nnz == 0
    record = adata.uns["spaf"]["embed"]
    assert adata.uns["spaf"]["account"] == {"read": 5}
    assert {"command", "versions", "parameters", "seconds", "peak_rss_mb", "model"} <= set(record)
    assert (record["n_cells"], record["n_empty"], record["n_genes_matched"]) == (60, 0, 40)
    assert (record["gene_fraction"], record["model_gene_fraction"], record["count_fraction"]) == (1.0, 1.0, 1.0)
    assert record["peak_rss_mb"] > 50


def test_record_survives_a_file(model: SpatialFormer, adata: anndata.AnnData, tmp_path: Path) -> None:
    model.embed(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    record = anndata.read_h5ad(tmp_path / "a.h5ad").uns["spaf"]["embed"]
    assert record["parameters"]["method"] == "cls"


def test_order_of_cells_and_genes_changes_nothing(model: SpatialFormer, adata: anndata.AnnData) -> None:
    rng = np.random.default_rng(0)
    shuffled = adata[rng.permutation(60), rng.permutation(40)].copy()
    model.embed(adata)
    model.embed(shuffled, token_budget=70)
    np.testing.assert_allclose(shuffled[adata.obs_names].obsm["X_SpaF"], adata.obsm["X_SpaF"], atol=1e-5)


def test_rows_are_read_in_chunks_without_a_trace(
    model: SpatialFormer, adata: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.embed(adata)
    monkeypatch.setattr("spaf_model.cell_source._ROWS_AT_A_TIME", 7)
    model.embed(adata, key_added="chunked")
    np.testing.assert_allclose(adata.obsm["chunked"], adata.obsm["X_SpaF"], atol=1e-5)


def test_context_changes_the_embedding(model: SpatialFormer, adata: anndata.AnnData) -> None:
    model.embed(adata)
    model.embed(adata, tissue="Lung", key_added="lung")
    assert np.abs(adata.obsm["lung"] - adata.obsm["X_SpaF"]).max() > 1e-3
    del adata.obs["tissue"]
    with pytest.raises(InputError, match="no column 'tissue'"):
        model.embed(adata)


def test_empty_cells_are_nan_counted_and_warned_of(
    model: SpatialFormer, adata: anndata.AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    dense = adata.X.toarray()
    dense[[4, 9]] = 0
    adata.X = dense
    with caplog.at_level(logging.WARNING):
        model.embed(adata)
    assert np.flatnonzero(np.isnan(adata.obsm["X_SpaF"]).any(axis=1)).tolist() == [4, 9]
    assert adata.uns["spaf"]["embed"]["n_empty"] == 2
    assert "2 of 60 cells have no gene of the model" in caplog.text
    with pytest.raises(InputError, match="'cell4' has no transcript"):
        model.embed(adata, strict=True)


def test_bad_counts_name_the_cell_beyond_the_first_chunk(
    model: SpatialFormer, adata: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spaf_model.cell_source._ROWS_AT_A_TIME", 16)
    dense = adata.X.toarray()
    dense[41, 3] = np.nan
    adata.X = dense
    with pytest.raises(InputError, match="'cell41' has the value nan"):
        model.embed(adata)
    assert "X_SpaF" not in adata.obsm


def test_log_counts_are_refused_with_the_hint(model: SpatialFormer, adata: anndata.AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    model.embed(adata, key_added="right")
    adata.X = np.log1p(adata.X.toarray())
    with pytest.raises(InputError, match="log-normalised.*layer="):
        model.embed(adata)
    model.embed(adata, layer="counts")
    np.testing.assert_array_equal(adata.obsm["X_SpaF"], adata.obsm["right"])


def test_max_genes_keeps_the_best_ranked(vocabulary: Vocabulary, adata: anndata.AnnData) -> None:
    limited = SpatialFormer(SpatialFormerConfig(width=32, n_layers=1, n_heads=2, max_genes=3), vocabulary)
    free = SpatialFormer(SpatialFormerConfig(width=32, n_layers=1, n_heads=2), vocabulary)
    limited.embed(adata, key_added="limited")
    free.embed(adata, key_added="free")
    few = np.asarray((adata.X > 0).sum(axis=1)).ravel() <= 3
    assert 0 < few.sum() < 60
    np.testing.assert_allclose(adata.obsm["limited"][few], adata.obsm["free"][few], atol=1e-5)
    assert (np.abs(adata.obsm["limited"][~few] - adata.obsm["free"][~few]).max(axis=1) > 1e-4).all()


def test_pairs_by_name_and_by_position_agree(model: SpatialFormer, adata: anndata.AnnData) -> None:
    by_name = model.embed_pairs(adata, ["cell3", "cell8"], ["cell50", "cell3"])
    by_position = model.embed_pairs(adata, [3, 8], np.array([50, 3]))
    np.testing.assert_array_equal(by_name.probabilities, by_position.probabilities)
    np.testing.assert_array_equal(by_name.embeddings, by_position.embeddings)
    assert ((by_name.probabilities > 0) & (by_name.probabilities < 1)).all()
    assert model.embed_pairs(adata, [], []).embeddings.shape == (0, 32)


def test_pairs_do_not_depend_on_side_order_batch_or_kernel(model: SpatialFormer, adata: anndata.AnnData) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 60, (2, 40))
    pairs = model.embed_pairs(adata, left, right)
    again, swapped = model.embed_pairs(adata, left, right), model.embed_pairs(adata, right, left)
    for other in (again, swapped):
        np.testing.assert_array_equal(other.probabilities, pairs.probabilities)
        np.testing.assert_array_equal(other.embeddings, pairs.embeddings)
    order = rng.permutation(40)
    elsewhere = model.embed_pairs(adata, left[order], right[order], token_budget=50, kernel="explicit")
    np.testing.assert_allclose(elsewhere.probabilities, pairs.probabilities[order], atol=1e-5)
    np.testing.assert_allclose(elsewhere.embeddings, pairs.embeddings[order], atol=1e-5)


def test_pairs_read_once_average_to_those_of_both_orders(model: SpatialFormer, adata: anndata.AnnData) -> None:
    left, right = np.arange(20), np.arange(20, 40)
    one = model.embed_pairs(adata, left, right, both_orders=False)
    other = model.embed_pairs(adata, right, left, both_orders=False)
    both = model.embed_pairs(adata, left, right)
    assert np.abs(one.probabilities - other.probabilities).max() > 1e-3
    np.testing.assert_allclose((one.probabilities + other.probabilities) / 2, both.probabilities, atol=1e-6)
    np.testing.assert_allclose((one.embeddings + other.embeddings) / 2, both.embeddings, atol=1e-5)


def test_pairs_need_the_context_of_their_own_cells_only(model: SpatialFormer, adata: anndata.AnnData) -> None:
    whole = model.embed_pairs(adata, [3, 8], [50, 3])
    adata.obs["tissue"] = adata.obs["tissue"].cat.set_categories(["Breast"])
    adata.obs.iloc[20, adata.obs.columns.get_loc("tissue")] = None
    np.testing.assert_array_equal(model.embed_pairs(adata, [3, 8], [50, 3]).embeddings, whole.embeddings)
    with pytest.raises(InputError, match="no value for cell 'cell20'"):
        model.embed_pairs(adata, [20], [3])


def test_cells_of_equal_names_are_given_by_position(model: SpatialFormer, adata: anndata.AnnData) -> None:
    expected = model.embed_pairs(adata, [3], [4]).probabilities
    adata.obs_names = ["same"] * 60
    np.testing.assert_array_equal(model.embed_pairs(adata, [3], [4]).probabilities, expected)
    with pytest.raises(InputError, match="obs_names are not unique; give integer positions"):
        model.embed_pairs(adata, ["same"], ["same"])


def test_memory_that_runs_out_names_the_setting_to_lower(
    model: SpatialFormer, adata: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ):
        monkeypatch.setattr(model.network.embedding, "forward", Mock(side_effect=error))
        for call in (
            lambda: model.embed(adata, token_budget=321),
            lambda: model.embed_pairs(adata, [1], [2], token_budget=321),
            lambda: model.predict_colocalization(adata, token_budget=321),
        ):
            with pytest.raises(InputError, match="cpu ran out of memory at 321 tokens a batch: lower token_budget"):
                call()
    monkeypatch.setattr(model.network.embedding, "forward", Mock(side_effect=RuntimeError("a bug of ours")))
    with pytest.raises(RuntimeError, match="a bug of ours"):
        model.embed(adata)
    assert not adata.obsm


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (["cell1"], ["nobody"], "right names cells that are not in the AnnData .1., such as 'nobody'"),
        ([60], [1], "left has the position 60; the AnnData has 60 cells"),
        ([1, 2], [1], "equal lengths, not 2 and 1"),
        ([[1]], [1], "one-dimensional"),
    ],
)
def test_bad_pairs(
    left: list[object], right: list[object], message: str, model: SpatialFormer, adata: anndata.AnnData
) -> None:
    with pytest.raises(InputError, match=message):
        model.embed_pairs(adata, left, right)  # type: ignore[arg-type]


def test_tl_embed_takes_a_model_or_a_path(model: SpatialFormer, adata: anndata.AnnData, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    spaf_model.tl.embed(adata, model, method="gene")
    spaf_model.tl.embed(adata, tmp_path / "model", method="gene", key_added="from_path")
    np.testing.assert_array_equal(adata.obsm["from_path"], adata.obsm["X_SpaF"])


def test_device_that_is_not_there(model: SpatialFormer) -> None:
    with pytest.raises(InputError, match="device 'toaster'"):
        model.to("toaster")

"""A SpatialFormer that reads values beside ranks, with a linear path, a decoder and heads of its own."""

import dataclasses

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from spaf_model import InputError, ReadingOptions, SpatialFormer, SpatialFormerConfig, SpatialFormerNetwork, TokenBatch
from spaf_model.spatialformer import CosinePairs, InferenceEncoder, SpatialFormerTokeniser

ALL = {
    "pair_input": "separate",
    "pair_comparison": "cosine",
    "gene_values": "zscore",
    "linear_path": 6,
    "contrast_rank": 4,
    "decoder_width": 12,
}


@pytest.fixture(params=["zscore", "pearson"])
def valued(request, config, vocabulary, randomised):
    model = SpatialFormer(dataclasses.replace(config, **ALL | {"gene_values": request.param}), vocabulary, seed=3)
    randomised(model.network)
    model.network.eval()
    return model


@pytest.fixture
def two_slides(adata):
    adata.obs["slide"] = pd.Categorical(["a"] * 35 + ["b"] * 25)
    return adata


def embedded(model, adata, **options):
    adata = adata.copy()
    model.embed(adata, progress=False, **options)
    return adata.obsm["X_SpaF"]


def test_the_published_configurations_and_the_default_have_none_of_it():
    for config in (SpatialFormerConfig.published("v1"), SpatialFormerConfig.published("v2"), SpatialFormerConfig()):
        assert (config.gene_values, config.linear_path, config.decoder_width, config.contrast_rank) == ("none", 0, 0, 0)
        assert config.pair_comparison == "projection"
        assert not config.reads_whole_slides
    network = SpatialFormerNetwork(SpatialFormerConfig(n_tokens=20, width=16, n_layers=1, n_heads=2))
    new = ("gene_values", "linear_path", "decoder", "contrast_projection")
    assert not [name for name in network.state_dict() if any(word in name for word in new)]


def test_weights_of_a_model_without_them_do_not_depend_on_the_new_parts(config, vocabulary):
    plain = SpatialFormer(config, vocabulary, seed=1).network.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in plain.values())
    again = SpatialFormer(SpatialFormerConfig.from_dict(config.as_dict()), vocabulary, seed=1).network.state_dict()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gene_values": "ranks"}, "gene_values must be one of none, zscore, pearson"),
        ({"linear_path": 4, "pair_input": "separate"}, "linear_path needs gene_values"),
        ({"decoder_width": 4, "gene_values": "zscore"}, "decoder_width needs pair_input = separate"),
        ({"linear_path": 99, "width": 64, **{"pair_input": "separate", "gene_values": "zscore"}}, "at most width"),
        ({"pair_comparison": "cosine"}, "pair_comparison = cosine needs pair_input = separate"),
        ({"contrast_rank": -1}, "contrast_rank must be a whole number of at least 0"),
    ],
)
def test_options_that_do_not_fit_together_are_named(options, words):
    with pytest.raises(InputError, match=words):
        SpatialFormerConfig(**options)


def test_values_stand_at_the_positions_of_their_genes(valued, two_slides):
    source = valued._source(two_slides, ReadingOptions())
    cells = valued.tokeniser(source.read())
    chosen = np.array([40, 3, 17])
    batch = cells.batch(chosen)
    rows = cells.ranked.values.rows(chosen)
    for row, ids in enumerate(batch.ids.tolist()):
        for place, token in enumerate(ids):
            is_gene = token in valued.vocabulary.gene_token_ids
            assert float(batch.values[row, place]) == (rows[row, token] if is_gene else 0.0)
    # Pairs have the values of either cell.
    pairs = TokenBatch.from_pairs(cells.ranked, cells.context, chosen, chosen[::-1], valued.vocabulary)
    second = pairs.types == 2
    expected = np.take_along_axis(rows[::-1], pairs.ids.numpy(), axis=1)
    np.testing.assert_array_equal(pairs.values[second].numpy(), expected[second.numpy()])
    assert pairs.profile is None


def test_an_embedding_depends_on_the_cells_of_the_slide_and_of_no_other(valued, two_slides):
    both = embedded(valued, two_slides)
    assert both.shape == (60, 32)
    for name in "ab":
        own = two_slides.obs["slide"] == name
        np.testing.assert_allclose(both[own], embedded(valued, two_slides[own]), atol=2e-5)
    assert np.abs(both - embedded(valued, two_slides.copy(), slide_key=None)).max() == 0.0
    del two_slides.obs["slide"]
    assert np.abs(both - embedded(valued, two_slides)).max() > 1e-3


def test_an_embedding_does_not_depend_on_the_batches(valued, two_slides):
    for method in ("cls", "gene"):
        whole = embedded(valued, two_slides, method=method)
        np.testing.assert_allclose(embedded(valued, two_slides, method=method, token_budget=50), whole, atol=2e-5)


@pytest.mark.parametrize("method", ["cls", "gene"])
def test_inference_is_the_network_in_evaluation_mode(valued, two_slides, method):
    cells = valued.tokeniser(valued._source(two_slides, ReadingOptions()).read())
    batch = cells.batch(np.arange(20))
    with torch.inference_mode():
        slow = valued.network.pool(valued.network.encode(batch), batch, method)
        hidden = InferenceEncoder(valued.network).encode(batch, cls_only=method == "cls")
        fast = valued.network.pool(hidden, batch, method)
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(embedded(valued, two_slides, method=method)[:20], slow.numpy(), atol=2e-5)


def test_kernels_agree(valued, two_slides):
    found = [embedded(valued, two_slides, kernel=kernel) for kernel in ("sdpa", "explicit")]
    np.testing.assert_allclose(*found, atol=2e-5)


def test_a_batch_in_parts_is_the_batch(valued, two_slides):
    cells = valued.tokeniser(valued._source(two_slides, ReadingOptions()).read())
    batch = cells.batch(np.arange(12))
    with torch.inference_mode():
        whole = valued.network.encode(batch)
        parts = batch.joined([valued.network.encode(part) for part in batch.split((5, 1, 6))])
    real = batch.mask
    torch.testing.assert_close(parts[real], whole[real], atol=2e-5, rtol=1e-4)


def test_every_part_has_a_gradient_but_the_loadings(valued, two_slides):
    network = valued.network.train()
    cells = valued.tokeniser(valued._source(two_slides, ReadingOptions()).read())
    state = network.encode(cells.batch(np.arange(10)))[:, 0]
    left, right = state[:5], state[5:]
    total = network.decoder(state).square().mean() + network.contrast_projection(state).square().mean()
    (total + network.pair_logits_of_cells(left - left.mean(0), right - right.mean(0))[:, 1].sum()).backward()
    for name in ("embedding.gene_values.weight", "linear_path.project.weight", "linear_path.gain"):
        assert network.get_parameter(name).grad.abs().sum() > 0, name
    for part in (network.decoder, network.contrast_projection, network.pair_head):
        assert all(parameter.grad is not None for parameter in part.parameters())
    assert "linear_path.loadings" in dict(network.named_buffers())


def test_a_stored_model_is_the_model(valued, two_slides, tmp_path):
    valued.save_pretrained(tmp_path / "model")
    stored = SpatialFormer.from_pretrained(tmp_path / "model")
    assert stored.config == valued.config
    assert stored.reads_whole_slides
    np.testing.assert_array_equal(embedded(stored, two_slides), embedded(valued, two_slides))


def test_pairs_are_compared_by_the_cosine_on_their_slide(valued, two_slides):
    assert isinstance(valued.network.pair_head, CosinePairs)
    left, right = np.array([0, 3, 50]), np.array([9, 1, 58])
    found = valued.embed_pairs(two_slides, left, right, progress=False)
    states = embedded(valued, two_slides)
    centre = {name: states[two_slides.obs["slide"] == name].mean(axis=0) for name in "ab"}
    centred = states - np.stack([centre[name] for name in two_slides.obs["slide"]])
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    head = valued.network.pair_head
    logit = head.slope.item() * (unit[left] * unit[right]).sum(axis=1) + head.offset.item()
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-logit)), atol=1e-5)
    np.testing.assert_allclose(found.embeddings, (states[left] + states[right]) / 2, atol=1e-5)
    swapped = valued.embed_pairs(two_slides, right, left, progress=False)
    np.testing.assert_array_equal(swapped.probabilities, found.probabilities)


def test_gene_pairs_read_whole_slides(valued, two_slides, monkeypatch):
    whole = two_slides.copy()
    valued.predict_colocalization(whole, 0.5, progress=False)
    monkeypatch.setattr("spaf_model.cell_source._ROWS_AT_A_TIME", 7)
    chunked = two_slides.copy()
    valued.predict_colocalization(chunked, 0.5, progress=False)
    difference = whole.obsm["colocalization_pred"] - chunked.obsm["colocalization_pred"]
    assert whole.obsm["colocalization_pred"].nnz
    assert abs(difference).max() < 1e-4


def test_a_model_that_reads_pairs_as_one_may_read_values(config, vocabulary, randomised, two_slides):
    model = SpatialFormer(dataclasses.replace(config, gene_values="pearson"), vocabulary)
    randomised(model.network)
    few = model.embed_pairs(two_slides, [0], [40], progress=False)
    many = model.embed_pairs(two_slides, [7, 0, 3], [5, 40, 9], progress=False)
    np.testing.assert_allclose(few.probabilities[0], many.probabilities[1], atol=1e-6)
    attention = [model.attention(two_slides, pairs, progress=False) for pairs in ([[0, 40]], [[40, 0]])]
    means = [one.table("left_to_right", min_pairs=1) for one in attention]
    assert len(means[0])
    other = attention[1].table("right_to_left", min_pairs=1)
    assert sorted(means[0]["weight"].round(5)) == sorted(other["weight"].round(5))


def test_cells_without_values_are_refused_in_one_sentence(valued, ranked, context, vocabulary):
    batch = TokenBatch.from_cells(ranked, context, np.arange(3), vocabulary)
    with pytest.raises(InputError, match="reads values of genes beside their ranks"):
        valued.network.encode(batch)


def test_empty_cells_and_no_cells_are_read(valued, two_slides):
    counts = two_slides.X.toarray()
    counts[5] = 0
    adata = anndata.AnnData(counts, obs=two_slides.obs, var=two_slides.var)
    states = embedded(valued, adata)
    assert np.isnan(states[5]).all()
    assert np.isfinite(np.delete(states, 5, axis=0)).all()


def test_the_tokeniser_takes_statistics_that_are_known(valued, two_slides):
    cells = valued._source(two_slides, ReadingOptions()).read()
    known = valued.tokeniser(cells).ranked.values.statistics
    config = valued.config
    tokeniser = SpatialFormerTokeniser(valued.vocabulary, config.max_genes, config.gene_values, known)
    again = tokeniser(cells).batch(np.arange(4))
    torch.testing.assert_close(again.values, valued.tokeniser(cells).batch(np.arange(4)).values)

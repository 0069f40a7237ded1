"""Scores of pairs of cells with genes changed, against cells whose genes were changed beforehand."""

import dataclasses

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_model import EmbeddingSettings, InputError, PerturbsPairs, ReadingOptions, SpatialFormer, asked
from spaf_model.spatialformer import perturbation

LEFT, RIGHT = [3, 8, 10, 3], [8, 40, 11, 21]


@pytest.fixture(params=["joint", "separate"])
def pairs_model(request, config, vocabulary, randomised):
    model = SpatialFormer(dataclasses.replace(config, pair_input=request.param), vocabulary, seed=3)
    randomised(model.network)
    model.network.eval()
    return model


def logit_with(model, adata, left, right, change=None) -> float:
    """The logit of one pair of cells that stand in a table of their own."""
    two = adata[[left, right]].copy()
    two.X = two.X.toarray()
    for row, gene, factor in change or ():
        two.X[row, gene] *= factor
    two = anndata.AnnData(two.X, obs=two.obs, var=two.var)
    both = [model.embed_pairs(two, *order, both_orders=False).probabilities for order in (([0], [1]), ([1], [0]))]
    p = np.concatenate(both).astype(np.float64)
    return float((np.log(p) - np.log1p(-p)).mean())


@pytest.mark.parametrize(("change", "factor"), [("delete", 0.0), ("fold", 3.0)])
def test_singles_and_interactions_are_those_of_cells_changed_beforehand(pairs_model, adata, change, factor):
    found = list(pairs_model.perturb_pairs(adata, LEFT, RIGHT, change=change, fold=3.0))
    assert len(found) == len(LEFT)
    for left, right, pair in zip(LEFT, RIGHT, found, strict=True):
        counts = adata.X.toarray()
        assert sorted(pair.genes_left) == np.flatnonzero(counts[left]).tolist()
        assert sorted(pair.genes_right) == np.flatnonzero(counts[right]).tolist()
        whole = logit_with(pairs_model, adata, left, right)
        assert pair.score == pytest.approx(whole, abs=1e-4)
        i, j = len(pair.genes_left) // 2, len(pair.genes_right) - 1
        of_left, of_right = (0, pair.genes_left[i], factor), (1, pair.genes_right[j], factor)
        if len(pair.genes_left) > 1 and len(pair.genes_right) > 1:
            one = logit_with(pairs_model, adata, left, right, [of_left]) - whole
            other = logit_with(pairs_model, adata, left, right, [of_right]) - whole
            both = logit_with(pairs_model, adata, left, right, [of_left, of_right]) - whole
            assert pair.delta_left[i] == pytest.approx(one, abs=2e-4)
            assert pair.delta_right[j] == pytest.approx(other, abs=2e-4)
            assert pair.interaction[i, j] == pytest.approx(both - one - other, abs=4e-4)


def test_a_masked_gene_leaves_the_ranks_of_the_others(pairs_model, adata):
    cells = perturbation.Perturbation(
        pairs_model.network, pairs_model.tokeniser, "mask", 2.0, EmbeddingSettings()
    ).variants(pairs_model._pair_source(adata, [3], [8], ReadingOptions())[0].read())
    ranked = cells.cells.ranked
    whole = ranked.tokens[: ranked.indptr[1]]
    for row, gene in enumerate(cells.genes[0], start=1):
        tokens = ranked.tokens[ranked.indptr[row] : ranked.indptr[row + 1]]
        assert tokens.tolist() == np.where(whole == gene, pairs_model.vocabulary.special_id("mask"), whole).tolist()
    masked = next(pairs_model.perturb_pairs(adata, [3], [8], change="mask"))
    deleted = next(pairs_model.perturb_pairs(adata, [3], [8]))
    assert masked.score == deleted.score
    assert not np.allclose(masked.delta_left, deleted.delta_left)


def test_swapping_the_cells_swaps_the_sides(pairs_model, adata):
    one, other = next(pairs_model.perturb_pairs(adata, [3], [8])), next(pairs_model.perturb_pairs(adata, [8], [3]))
    assert one.score == pytest.approx(other.score, abs=1e-5)
    np.testing.assert_array_equal(one.genes_left, other.genes_right)
    np.testing.assert_allclose(one.delta_left, other.delta_right, atol=1e-5)
    np.testing.assert_allclose(one.interaction, other.interaction.T, atol=1e-5)


def test_parts_change_nothing(pairs_model, adata, monkeypatch):
    whole = list(pairs_model.perturb_pairs(adata, LEFT, RIGHT))
    monkeypatch.setattr(perturbation, "_READINGS_AT_ONCE", 5)
    monkeypatch.setattr(perturbation, "_SCORES_AT_ONCE", 7)
    for one, other in zip(whole, pairs_model.perturb_pairs(adata, LEFT, RIGHT), strict=True):
        np.testing.assert_allclose(one.interaction, other.interaction, atol=2e-5)


def test_only_what_is_wanted_is_read_as_one_sequence(pairs_model, adata):
    whole = next(pairs_model.perturb_pairs(adata, [3], [8]))
    wanted = np.zeros((adata.n_vars, adata.n_vars), dtype=bool)
    wanted[whole.genes_left[0], whole.genes_right[1]] = True
    part = next(pairs_model.perturb_pairs(adata, [3], [8], wanted=wanted))
    np.testing.assert_allclose(part.delta_right, whole.delta_right, atol=1e-5)
    assert part.interaction[0, 1] == pytest.approx(whole.interaction[0, 1], abs=1e-5)
    expected = part.interaction.size if pairs_model.compares_states else 1
    assert np.isfinite(part.interaction).sum() == expected
    with pytest.raises(InputError, match=r"wanted must be of shape \(40, 40\), not \(2, 2\)"):
        pairs_model.perturb_pairs(adata, [3], [8], wanted=np.ones((2, 2), dtype=bool))


def test_a_cosine_of_values_sees_the_slide_as_it_was(config, vocabulary, randomised, adata):
    switches = {"pair_input": "separate", "pair_comparison": "cosine", "gene_values": "zscore", "linear_path": 6}
    model = SpatialFormer(dataclasses.replace(config, **switches), vocabulary, seed=3)
    randomised(model.network)
    model.network.eval()
    adata.obs["slide"] = pd.Categorical(["a"] * 35 + ["b"] * 25)
    pair = next(model.perturb_pairs(adata, [3], [8]))
    p = model.embed_pairs(adata, [3], [8]).probabilities[0]
    assert pair.score == pytest.approx(np.log(p) - np.log1p(-p), abs=1e-4)
    # A change of one count hardly moves the statistics of 35 cells, so a table that was changed says nearly the same.
    changed = adata.copy()
    counts = changed.X.toarray()
    counts[3, pair.genes_left[0]] = 0
    changed.X = counts
    p = model.embed_pairs(changed, [3], [8]).probabilities[0]
    assert pair.score + pair.delta_left[0] == pytest.approx(np.log(p) - np.log1p(-p), abs=0.15)
    with pytest.raises(InputError, match="change = mask is for models of ranks alone"):
        model.perturb_pairs(adata, [3], [8], change="mask")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"change": "drop"}, "change must be one of delete, mask, fold"), ({"change": "fold", "fold": 1.0}, "not 1")],
)
def test_wrong_changes_are_refused_before_the_work(pairs_model, adata, options, sentence):
    with pytest.raises(InputError, match=sentence):
        pairs_model.perturb_pairs(adata, [3], [8], **options)


def test_a_spatialformer_can_be_asked(model):
    assert asked(model, PerturbsPairs) is model

"""Values beside ranks in training, and panels that hide genes from a batch."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from spaf_model import InputError, ReadingOptions, SpatialFormer, SpatialFormerConfig
from spaf_train import BatchStream, ObjectivesConfig, SamplingConfig
from spaf_train.objectives import OBJECTIVES

PATCHES = SamplingConfig(input="patches", token_budget=100_000)
CELLS = SamplingConfig(input="cells", token_budget=100_000, window_blocks=2)


@pytest.fixture
def stream(corpus, vocabulary):
    tables = {name: objective.Config(enabled=name == "contrast") for name, objective in OBJECTIVES.items()}

    def make(sampling, *, kind="zscore", **options):
        model = SpatialFormer(SpatialFormerConfig(width=16, n_layers=1, n_heads=2, gene_values=kind), vocabulary)
        given = {"split": "train", "seed": 4}
        return BatchStream(corpus, model, sampling, ObjectivesConfig(**tables), **given | options)

    return make


@pytest.mark.parametrize("kind", ["zscore", "pearson"])
@pytest.mark.parametrize("sampling", [PATCHES, CELLS], ids=["patches", "cells"])
def test_training_reads_the_values_that_embedding_reads(stream, slides, vocabulary, kind, sampling):
    """The same cells of a slide give the same numbers, whether a corpus or an AnnData holds them."""
    config = SpatialFormerConfig(width=16, n_layers=1, n_heads=2, gene_values=kind)
    model = SpatialFormer(config, vocabulary)
    train = stream(sampling, kind=kind)
    window = train._current_window().cells
    checked = 0
    for number, slide in enumerate(slides):
        own = slide[slide.obs["split"] == "train"].copy()
        source = model._source(own, ReadingOptions())
        cells = model.tokeniser(source.read())
        batch = cells.batch(np.arange(own.n_obs))
        by_place = {tuple(xy): row for row, xy in enumerate(own.obsm["spatial"].astype(np.float32).tolist())}
        rows = np.flatnonzero(window.slide == number)
        theirs = [by_place[tuple(xy)] for xy in window.coordinates[rows].tolist()]
        np.testing.assert_allclose(
            window.tokenised.ranked.values.rows(rows), cells.ranked.values.rows(theirs), atol=1e-5
        )
        np.testing.assert_allclose(
            window.tokenised.ranked.values.profiles(rows, window.tokenised.ranked.values.rows(rows)),
            batch.profile[theirs],
            atol=1e-5,
        )
        checked += rows.size
    assert checked == len(window)


def test_values_do_not_depend_on_the_window_or_the_process(stream):
    small, large = (stream(dataclasses.replace(CELLS, window_blocks=n)) for n in (1, 8))
    found = []
    for one in (small, large):
        cells = one._current_window().cells
        rows = cells.tokenised.ranked.values.rows(np.arange(len(cells)))
        found.append(dict(zip(map(tuple, cells.coordinates.tolist()), rows, strict=True)))
    shared = found[0].keys() & found[1].keys()
    assert shared
    for place in shared:
        np.testing.assert_array_equal(found[0][place], found[1][place])
    other = copy.deepcopy(large)  # as a worker gets it
    assert torch.equal(other.next_step()[0].masked.profile, large.next_step()[0].masked.profile)


def test_a_panel_hides_the_same_genes_from_all_cells_of_a_batch(stream, vocabulary):
    genes = vocabulary.gene_token_ids
    train = stream(dataclasses.replace(PATCHES, panel_min=0.4))
    shares = []
    for _ in range(8):
        batch = train.next_step()[0].masked
        shown = batch.profile[:, genes].ne(0).any(dim=0)
        tokens = set(batch.ids.flatten().tolist()) & set(genes.tolist())
        assert tokens <= set(genes[shown.numpy()].tolist())
        # Every gene that is shown has a value in every cell, found there or not.
        assert batch.profile[:, genes][:, shown].ne(0).float().mean() > 0.95
        shares.append(float(shown.float().mean()))
    assert min(shares) < 0.7 < max(shares)
    assert len(set(shares)) > 3


def test_without_a_panel_no_draw_changes(stream):
    """Thinning draws what it drew before there were panels, and equal places give equal batches."""
    thinned = dataclasses.replace(PATCHES, thinning=0.3)
    one, other = stream(thinned, kind="none"), stream(thinned)
    for _ in range(3):
        plain, valued = one.next_step()[0].masked, other.next_step()[0].masked
        assert torch.equal(plain.ids, valued.ids)
        assert plain.values is None
        assert valued.values.ne(0).any()
    hidden = [stream(dataclasses.replace(PATCHES, panel_min=0.5)).next_step()[0].masked for _ in range(2)]
    assert torch.equal(hidden[0].ids, hidden[1].ids)
    assert torch.equal(hidden[0].profile, hidden[1].profile)


def test_a_bad_shard_does_not_count_for_the_statistics(stream, corpus):
    shard = corpus.block_refs("train")[0].shard
    whole = stream(PATCHES)
    less = stream(PATCHES, skip_shards=[shard])
    assert len(less.all_cells()) < len(whole.all_cells())
    assert np.isfinite(less.all_cells().tokenised.ranked.values.rows(np.arange(5))).all()


@pytest.mark.parametrize("value", [0.0, 1.5, float("nan")])
def test_a_panel_out_of_range_is_named(value):
    with pytest.raises(InputError, match="panel_min must be above 0 and at most 1"):
        SamplingConfig(panel_min=value)

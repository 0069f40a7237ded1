import numpy as np
import pytest
from scipy.spatial import cKDTree

from spaf_data import write_corpus
from spaf_model import InputError, family_of
from spaf_train import BatchStream, read_config, vocabulary_from_corpus

OFF = [f"objectives.{name}.enabled=false" for name in ("masked_values", "neighbourhood")]


@pytest.fixture
def windows(corpus, read_by):
    """Return a function that makes a stream of windows; its options are those of the sampler and of the stream."""

    def make(*, source=corpus, split="train", seed=0, rank=0, world_size=1, skip_shards=(), sampling=(), **options):
        overrides = [f"sampling.windows.{name}={value}" for name, value in options.items()]
        overrides += [f"sampling.{option}" for option in ("window_blocks=3", *sampling)]
        config = read_config("scgpt_spatial", overrides=[*OFF, "model.width=8", "model.n_layers=1", *overrides])
        model = family_of("scgpt_spatial")(config.model, vocabulary_from_corpus(source, context_dropout=0.0))
        return BatchStream(
            source, model, config.sampling, config.objectives, split=split, seed=seed, rank=rank, world_size=world_size,
            skip_shards=skip_shards,
        )  # fmt: skip

    return make


def drawn(stream, epoch=0):
    """The windows of an epoch, as the sampler gives them, with the cells in memory."""
    for number in range(stream._n_windows):
        found = stream._read_window(epoch, number)
        for inputs, _ in found.batches:
            yield found.cells, inputs


@pytest.mark.parametrize("neighbours", [0, 8])
def test_an_epoch_asks_each_cell_once_in_windows_of_one_slide(windows, neighbours):
    stream = windows(cells=10, neighbours=neighbours)
    for epoch in range(2):
        asked = []
        for cells, inputs in drawn(stream, epoch):
            own = inputs.left[inputs.asked]
            assert 1 <= own.size <= 10
            assert np.unique(cells.slide[inputs.left]).size == 1
            assert np.unique(inputs.left).size == len(inputs)
            assert inputs.beside is not None
            assert bool(inputs.beside.any()) <= bool(neighbours)
            asked += cells.number[own].tolist()
        assert sorted(asked) == list(range(stream.n_cells))


def test_every_neighbour_within_the_radius_is_in_the_window_or_beside_it(windows, corpus):
    """Held against a look at all cells of the split: what a block does not own must be in its halo."""
    stream, radius = windows(cells=10, neighbours=5), corpus.distances.positive
    everything = stream.all_cells()
    for cells, inputs in drawn(stream):
        there = {tuple(place) for place in cells.coordinates[inputs.left].tolist()}
        slide = cells.slide[inputs.left[0]]
        tree = cKDTree(everything.coordinates[everything.slide == slide])
        places = everything.coordinates[everything.slide == slide]
        for place in cells.coordinates[inputs.left[inputs.asked]]:
            distances, near = tree.query(place, k=6, distance_upper_bound=np.nextafter(radius, np.inf))
            for found in near[1:][np.isfinite(distances[1:])]:
                assert tuple(places[found].tolist()) in there


def test_windows_are_compact(windows):
    spread, wide = [], []
    for cells, inputs in drawn(windows(cells=10, neighbours=0)):
        places = cells.coordinates[inputs.left]
        spread.append(places.std(axis=0).mean())
        wide.append(cells.coordinates[cells.slide == cells.slide[inputs.left[0]]].std(axis=0).mean())
    assert np.mean(spread) < 0.5 * np.mean(wide)


def test_long_cells_come_in_smaller_windows(windows):
    sizes = [inputs.asked.sum() for _, inputs in drawn(windows(cells=100, neighbours=0, tokens=100))]
    tokens = [cells.lengths[inputs.left].sum() for cells, inputs in drawn(windows(cells=100, neighbours=0, tokens=100))]
    assert max(sizes) < 14
    assert np.mean(tokens) < 130


def test_slides_alternate(windows):
    """Three blocks are in memory: where they are of both slides, a slide does not come all at once."""
    slides = [
        int(cells.slide[inputs.left[0]]) for cells, inputs in drawn(windows(cells=5, sampling=["window_blocks=50"]))
    ]
    changes = int((np.diff(slides) != 0).sum())
    assert changes > len(slides) // 2


def test_another_epoch_has_other_windows_and_the_same_epoch_the_same(windows):
    def cut(epoch):
        return [cells.number[inputs.left].tolist() for cells, inputs in drawn(windows(cells=10), epoch)]

    assert cut(0) == cut(0)
    assert cut(0) != cut(1)


def test_batches_are_functions_of_their_place_whatever_the_number_of_ranks(windows):
    options = {"cells": 10, "sampling": ["batches_per_step=2"]}
    alone, ranks = windows(**options), [windows(**options, rank=rank, world_size=2) for rank in range(2)]

    def content(batches):
        return {
            batch.name: (batch.masked.ids.numpy().tobytes(), batch.masked.values.numpy().tobytes()) for batch in batches
        }

    for _ in range(15):  # into the next epoch
        state = alone.state_dict()
        expected = content(alone.next_step())
        assert content(batch for one in ranks for batch in one.next_step()) == expected
    again = windows(**options)
    again.load_state_dict(state)
    assert content(again.next_step()) == expected


def test_cells_far_from_each_other_have_no_neighbours(windows):
    for _, inputs in drawn(windows(cells=1, neighbours=8, within=0.001)):
        assert inputs.asked.all()


def test_a_slide_in_one_block_has_neighbours_at_any_distance(windows, slides, tmp_path):
    corpus = write_corpus([slides[0]], tmp_path / "corpus", block_cells=1000, positive_radius=1.0)
    for cells, inputs in drawn(windows(source=corpus, cells=20, neighbours=8)):
        assert len(inputs) > 20 or inputs.asked.sum() < 20
        _, distances = cells.nearest(inputs.left[inputs.asked], 8)
        assert np.isfinite(distances).all()


def test_what_a_slide_does_not_measure_is_no_gene_of_its_panel(windows, slides, tmp_path):
    fewer = slides[1][:, :16].copy()
    fewer.uns = {}
    del fewer.obsm["colocalization"]
    corpus = write_corpus([slides[0], fewer], tmp_path / "corpus", block_cells=40, colocalization_key=None)
    stream = windows(source=corpus)
    genes = np.array(stream.vocabulary.tokens)
    assert genes[stream.panel("first")].tolist() == slides[0].var_names.tolist()
    assert genes[stream.panel("second")].tolist() == slides[0].var_names[:16].tolist()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("cells=0", "cells must be at least 1"),
        ("within=0", "within must be above 0 um"),
        ("neighbours=-1", "neighbours must be"),
    ],
)
def test_impossible_options_are_named(option, sentence):
    with pytest.raises(InputError, match=sentence):
        read_config("scgpt_spatial", overrides=[f"sampling.windows.{option}"])


def test_nearest_agrees_with_all_distances(windows):
    stream = windows()
    cells = stream.all_cells()
    rows = np.arange(0, len(cells), 7)
    found, distances = cells.nearest(rows, 6, within=60.0)
    for row, near, far in zip(rows, found, distances, strict=True):
        same = np.flatnonzero((cells.slide == cells.slide[row]) & (np.arange(len(cells)) != row))
        gaps = np.linalg.norm(cells.coordinates[same].astype(float) - cells.coordinates[row], axis=1)
        order = np.argsort(gaps, kind="stable")
        expected = [same[place] for place in order if gaps[place] <= 60.0][:6]
        assert near[near >= 0].tolist() == expected
        assert np.isfinite(far).sum() == len(expected)

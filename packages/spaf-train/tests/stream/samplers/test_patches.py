import numpy as np
import pytest

from spaf_data import InputError as DataError
from spaf_model import CONTEXT_KINDS, InputError
from spaf_train import ObjectivesConfig, read_config
from spaf_train._options import Tables
from spaf_train.objectives import PairsConfig
from spaf_train.stream.samplers import PatchConfig

CELLS_ONLY = ObjectivesConfig(pairs=PairsConfig(enabled=False))


@pytest.fixture
def patches(make_stream):
    """Return a function that makes a stream of patches; its options are those of the sampler and of the stream."""

    def make(*, sites=3, cells=4, draws=20, **options):
        tables = Tables({"patches": PatchConfig(sites=sites, cells=cells, draws=draws)})
        return make_stream(input="patches", tables=tables, objectives=CELLS_ONLY, **options)

    return make


def drawn(stream, n=20):
    """Inputs of the first draws, and the cells they are of."""
    draws = stream.draws(0)
    return stream.all_cells(), [next(draws).left for _ in range(n)]


def test_a_batch_holds_whole_cells_of_one_slide_and_split(corpus, patches):
    owned = {
        tuple(place): (block.slide, block.counts[block.indptr[cell] : block.indptr[cell + 1]].size)
        for block in map(corpus.read, corpus.block_refs("train"))
        for cell, place in enumerate(block.coordinates[: block.n_owned].tolist())
    }
    stream = patches()
    cells, batches = drawn(stream)
    assert len(cells) == stream.n_cells == len(owned)
    assert sorted(cells.number) == list(range(len(owned)))
    slides = set()
    for chosen in batches:
        assert 4 <= len(chosen) <= 24
        found = [owned[tuple(place)] for place in cells.coordinates[chosen].tolist()]
        assert len({slide for slide, _ in found}) == 1
        np.testing.assert_array_equal(cells.tokenised.ranked.n_genes[chosen], [n for _, n in found])
        assert len(set(chosen)) == len(chosen)
        slides.add(found[0][0])
    assert slides == {"first", "second"}


def test_the_middles_of_the_two_patches_of_a_site_are_apart_as_hard_negatives(patches):
    """With patches of two cells at two sites a batch has four places: of each site two, some 80 to 150 um apart."""
    cells, batches = drawn(patches(sites=2, cells=2), 60)
    near = []
    for chosen in batches:
        points = cells.coordinates[chosen]
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)
        near.append(((apart > 60) & (apart < 170)).any(axis=1).mean())
    assert np.mean(near) > 0.8


def test_an_epoch_is_as_many_draws_as_asked_for_and_epochs_differ(patches):
    stream = patches(draws=7)
    first, again, second = (
        [batch.unmasked.ids.numpy().tobytes() for batch in stream.one_epoch(epoch)] for epoch in (0, 0, 1)
    )
    assert len(first) == len(set(first)) == 7
    assert first == again
    assert not set(first) & set(second)


def test_ranks_share_the_draws_of_one_process(patches):
    options = {"batches_per_step": 4, "thinning": 0.3}
    alone, ranks = patches(**options), [patches(rank=rank, world_size=2, **options) for rank in range(2)]
    for _ in range(7):  # into the second epoch
        expected = {batch.name: batch.masked.ids.numpy().tobytes() for batch in alone.next_step()}
        assert {
            batch.name: batch.masked.ids.numpy().tobytes() for one in ranks for batch in one.next_step()
        } == expected


def test_thinning_removes_genes(patches):
    whole, thin = (next(patches(thinning=share).one_epoch()).n_tokens for share in (0.0, 0.9))
    assert thin < whole


def test_edges_are_those_of_the_cells(patches):
    cells, (chosen, *_) = drawn(patches())
    assert cells.has_edges.all()
    ranked = cells.tokenised.ranked
    for cell in chosen:
        tokens = ranked.tokens[ranked.indptr[cell] : ranked.indptr[cell + 1]]
        assert np.isin(cells.edges[cells.edge_indptr[cell] : cells.edge_indptr[cell + 1]], tokens).all()


def test_a_split_without_cells_is_refused(patches):
    with pytest.raises(DataError, match="no split 'test'"):
        patches(split="test")


def test_contexts_are_dropped_as_often_as_asked(patches, vocabulary):
    unknown = [vocabulary.context_id(kind, "unknown") for kind in CONTEXT_KINDS]
    for chance in (0.0, 0.5, 1.0):
        batch = next(patches(sites=12, cells=6, context_dropout=chance).one_epoch())
        dropped = batch.unmasked.ids[:, 1:5].numpy() == unknown
        assert dropped.mean() == pytest.approx(chance, abs=0.15 if chance == 0.5 else 0.0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("sites=1", r"sampling\.patches: sites must be at least 2"),
        ("apart_max=-1", r"apart_max must be at least apart_min"),
        ("cels=3", r"sampling\.patches\.cels is not an option; did you mean cells"),
    ],
)
def test_an_option_out_of_range_is_named(config_path, option, message):
    with pytest.raises(InputError, match=message):
        read_config(config_path, overrides=["sampling.patches.apart_min=3", f"sampling.patches.{option}"])

import numpy as np
import pytest

from spaf_data import InputError
from spaf_model import CONTEXT_KINDS
from spaf_train.recipes import PatchConfig
from spaf_train.recipes.patches import Patches

CONFIG = PatchConfig(sites=3, cells=4, thinning=0.0)


def test_a_step_holds_whole_cells_of_one_slide_and_split(corpus, vocabulary):
    owned = {
        tuple(place): (block.slide, block.counts[block.indptr[cell] : block.indptr[cell + 1]].size)
        for block in map(corpus.read, corpus.block_refs("train"))
        for cell, place in enumerate(block.coordinates[: block.n_owned].tolist())
    }
    patches = Patches(corpus, vocabulary, split="train", config=CONFIG, max_genes=None)
    assert patches.n_cells == len(owned)
    slides = set()
    for number in range(20):
        cells = patches.draw(np.random.default_rng(number))
        assert 4 <= len(cells) <= 24
        found = [owned[tuple(place)] for place in cells.coordinates.tolist()]
        assert len({slide for slide, _ in found}) == 1
        np.testing.assert_array_equal(cells.ranked.n_genes, [n for _, n in found])
        assert len({tuple(place) for place in cells.coordinates.tolist()}) == len(cells)
        slides.add(found[0][0])
    assert slides == {"first", "second"}


def test_equal_seeds_give_equal_steps(corpus, vocabulary):
    patches = Patches(corpus, vocabulary, split="train", config=PatchConfig(sites=2, cells=4), max_genes=5)
    one, same = (patches.draw(np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one.ranked.tokens, same.ranked.tokens)
    assert one.ranked.n_genes.max() <= 5


def test_thinning_removes_genes(corpus, vocabulary):
    whole, thin = (
        Patches(corpus, vocabulary, split="train", config=PatchConfig(sites=3, cells=4, thinning=share), max_genes=None)
        for share in (0.0, 0.9)
    )
    assert (
        thin.draw(np.random.default_rng(0)).ranked.tokens.size < whole.draw(np.random.default_rng(0)).ranked.tokens.size
    )


def test_edges_are_those_of_the_cells(corpus, vocabulary):
    patches = Patches(corpus, vocabulary, split="train", config=CONFIG, max_genes=None)
    cells = patches.draw(np.random.default_rng(1))
    assert cells.knows_edges
    assert cells.edges.shape == (cells.indptr[-1], 2)
    for cell in range(len(cells)):
        tokens = cells.ranked.tokens[cells.ranked.indptr[cell] : cells.ranked.indptr[cell + 1]]
        assert np.isin(cells.edges[cells.indptr[cell] : cells.indptr[cell + 1]], tokens).all()


def test_a_split_without_cells_is_refused(corpus, vocabulary):
    with pytest.raises(InputError, match="no split 'test'"):
        Patches(corpus, vocabulary, split="test", config=CONFIG, max_genes=None)


def test_counts_are_those_of_the_cells_that_are_chosen(corpus, vocabulary):
    patches = Patches(corpus, vocabulary, split="train", config=CONFIG, max_genes=None)
    counts = patches.counts()
    cells = patches.draw(np.random.default_rng(5))
    chosen, coordinates = patches.choose(np.random.default_rng(5))
    np.testing.assert_array_equal(cells.index, chosen)
    np.testing.assert_array_equal(cells.coordinates, coordinates)
    for row, cell in enumerate(chosen):
        tokens = cells.ranked.tokens[cells.ranked.indptr[row] : cells.ranked.indptr[row + 1]]
        assert set(tokens) == set(counts[cell].indices)
    n_cells = corpus.gene_statistics["n_cells"].reindex(corpus.genes).fillna(0)
    assert (counts > 0).sum() == n_cells.sum()


def test_contexts_are_dropped_as_often_as_asked(corpus, vocabulary):
    unknown = [vocabulary.context_id(kind, "unknown") for kind in CONTEXT_KINDS]
    for chance in (0.0, 0.5, 1.0):
        config = PatchConfig(sites=12, cells=6, context_dropout=chance)
        patches = Patches(corpus, vocabulary, split="train", config=config, max_genes=None)
        dropped = patches.draw(np.random.default_rng(0)).context == unknown
        assert dropped.mean() == pytest.approx(chance, abs=0.15 if chance == 0.5 else 0.0)

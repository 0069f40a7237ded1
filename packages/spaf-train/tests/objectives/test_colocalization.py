import numpy as np
import pytest
import torch

from spaf_model import RankedCells, TokenBatch
from spaf_train.objectives import colocalized_genes, focal_loss


def slow_targets(batch, cells, edge_indptr, edges, vocabulary):
    """Every (row, i, j) with i < j of one segment and whether the two genes are co-localised, by plain loops."""
    genes = set(vocabulary.gene_token_ids.tolist())
    ids, types = batch.ids.tolist(), batch.types.tolist()
    expected = {}
    for row in range(len(ids)):
        for segment in (1, 2):
            cell = cells[row][segment - 1]
            known = set()
            if cell >= 0:
                known = {frozenset(pair) for pair in edges[edge_indptr[cell] : edge_indptr[cell + 1]].tolist()}
            places = [i for i, token in enumerate(ids[row]) if types[row][i] == segment and token in genes]
            for a, i in enumerate(places):
                for j in places[a + 1 :]:
                    expected[row, i, j] = float(frozenset((ids[row][i], ids[row][j])) in known)
    return expected


@pytest.fixture
def cells(vocabulary):
    """Six cells whose genes stand in random order, with random co-localised pairs, some of genes they do not have."""
    generator = np.random.default_rng(0)
    genes = vocabulary.gene_token_ids
    lengths = np.array([5, 1, 9, 0, 7, 3])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.concatenate([generator.choice(genes, n, replace=False) for n in lengths])
    edges, counts = [], []
    for cell in range(6):
        own = tokens[indptr[cell] : indptr[cell + 1]]
        chosen = [(a, b) for a in own for b in own if a < b and generator.random() < 0.4]
        chosen += [(genes[0], genes[1]), (-1, genes[2])]
        edges += chosen
        counts.append(len(chosen))
    edge_indptr = np.concatenate([[0], np.cumsum(counts)])
    context = np.tile([vocabulary.context_id(kind, "unknown") for kind in vocabulary.context], (6, 1))
    return RankedCells(indptr, tokens), context, edge_indptr, np.array(edges)


def check(batch, segments, cells, vocabulary):
    _, _, edge_indptr, edges = cells
    found = colocalized_genes(batch, segments, edge_indptr, edges, vocabulary)
    length = batch.ids.shape[1]
    positions = found.positions.numpy()
    places = zip(positions // length**2, positions // length % length, positions % length, strict=True)
    got = dict(zip([tuple(map(int, place)) for place in places], found.targets.tolist(), strict=True))
    expected = slow_targets(batch, segments.tolist(), edge_indptr, edges, vocabulary)
    assert got == expected
    assert 0 < sum(expected.values()) < len(expected)
    assert found.weight == len(expected)


def test_pairs_of_cells_agree_with_loops(cells, vocabulary):
    left, right = np.array([0, 2, 3, 4, 1]), np.array([4, 2, 5, 0, 3])
    batch = TokenBatch.from_pairs(cells[0], cells[1], left, right, vocabulary)
    check(batch, np.stack([left, right], axis=1), cells, vocabulary)


def test_cells_of_which_nothing_is_known_have_no_targets(cells, vocabulary):
    ranked, context, edge_indptr, edges = cells
    left, right = np.array([0, 2]), np.array([4, 5])
    batch = TokenBatch.from_pairs(ranked, context, left, right, vocabulary)
    all_known = colocalized_genes(batch, np.stack([left, right], axis=1), edge_indptr, edges, vocabulary)
    segments = np.array([[0, -1], [-1, 5]])
    found = colocalized_genes(batch, segments, edge_indptr, edges, vocabulary)
    n_genes = ranked.n_genes
    assert found.weight == sum(n * (n - 1) // 2 for n in n_genes[[0, 5]])
    kept = np.isin(all_known.positions, found.positions)
    torch.testing.assert_close(found.positions, all_known.positions[kept])
    torch.testing.assert_close(found.targets, all_known.targets[kept])


def test_single_cells_agree_with_loops(cells, vocabulary):
    batch = TokenBatch.from_cells(cells[0], cells[1], np.arange(6), vocabulary)
    check(batch, np.stack([np.arange(6), np.full(6, -1)], axis=1), cells, vocabulary)


def test_labels_of_a_corpus_belong_to_the_right_genes(make_stream, corpus, vocabulary):
    """Read the pairs back from a batch by gene name and compare with the block: a shift by one place would fail."""
    stream = make_stream(input="pairs")
    known = set()
    for ref in corpus.block_refs("train"):
        block = corpus.read(ref)
        for cell in range(block.n_cells):
            edges = block.colocalized[block.colocalized_indptr[cell] : block.colocalized_indptr[cell + 1]]
            own = block.genes[block.indptr[cell] : block.indptr[cell + 1]]
            names = frozenset(corpus.genes[gene] for gene in own)
            known.add((names, frozenset(frozenset(corpus.genes[gene] for gene in pair) for pair in edges)))
    for number, batch in enumerate(stream.one_epoch()):
        length = batch.unmasked.ids.shape[1]
        ids, types = batch.unmasked.ids.numpy(), batch.unmasked.types.numpy()
        cell_genes, cell_pairs = {}, {}
        for row, column in np.argwhere(np.isin(ids, vocabulary.gene_token_ids)):
            cell_genes.setdefault((row, types[row, column]), set()).add(vocabulary.tokens[ids[row, column]])
        for position in batch.targets["colocalization"].positions[batch.targets["colocalization"].targets > 0].tolist():
            row, i, j = position // length**2, position // length % length, position % length
            pair = frozenset(vocabulary.tokens[ids[row, place]] for place in (i, j))
            cell_pairs.setdefault((row, types[row, i]), set()).add(pair)
        for cell, genes in cell_genes.items():
            assert (frozenset(genes), frozenset(cell_pairs.get(cell, ()))) in known
        if number == 3:
            break


def test_focal_loss_by_hand():
    logits, targets = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 0.0, 0.0])
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    expected = -0.25 * (1 - p[0]) ** 2 * np.log(p[0]) - 0.75 * (p[1:] ** 2 * np.log(1 - p[1:])).sum()
    assert focal_loss(logits, targets, alpha=0.25, gamma=2.0).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_without_focus_is_half_the_cross_entropy():
    logits, targets = torch.randn(50, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 2.0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / 2
    assert focal_loss(logits, targets, alpha=0.5, gamma=0.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_focal_loss_stays_finite_for_certain_answers():
    loss = focal_loss(torch.tensor([200.0, -200.0]), torch.tensor([0.0, 1.0]), alpha=0.25, gamma=2.0)
    assert loss.item() == pytest.approx(200.0, rel=1e-5)

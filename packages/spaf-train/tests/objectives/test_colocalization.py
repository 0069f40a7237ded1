import numpy as np
import pytest
import torch

from spaf_model import CellCounts, RankedCells, TokenBatch
from spaf_train.objectives import colocalized_genes, focal_loss
from spaf_train.objectives.base import Loss, Total
from spaf_train.objectives.chance import least_focal_loss
from spaf_train.objectives.colocalization import ColocalizationConfig, ColocalizationObjective
from spaf_train.objectives.expression_strata import offsets, strata


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


def counts_of(ranked, segments, vocabulary, generator):
    """Counts of the cells in the segments of which something is known, in random order of genes."""
    cells = segments.reshape(-1)
    rows = [ranked.tokens[ranked.indptr[cell] : ranked.indptr[cell + 1]] for cell in cells[cells >= 0]]
    orders = [generator.permutation(len(row)) for row in rows]
    of_gene = {int(token): float(count) for token, count in zip(vocabulary.gene_token_ids, GENE_COUNTS, strict=False)}
    tokens = np.concatenate([row[order] for row, order in zip(rows, orders, strict=True)])
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    counts = np.array([of_gene[int(token)] for token in tokens], dtype=np.float32)
    n, measured = len(rows), np.ones(vocabulary.n_tokens, dtype=bool)
    context, slides = np.full((n, 4), -1), np.zeros(n, dtype=np.int64)
    return CellCounts(indptr, tokens, counts, context, measured, slides), of_gene


GENE_COUNTS = np.random.default_rng(7).integers(1, 200, 500)


def test_the_smaller_count_of_a_pair_belongs_to_its_genes(cells, vocabulary):
    ranked, context, edge_indptr, edges = cells
    left, right = np.array([0, 2, 4]), np.array([4, 5, 2])
    batch = TokenBatch.from_pairs(ranked, context, left, right, vocabulary)
    segments = np.array([[0, 4], [-1, 5], [4, 2]])
    counts, of_gene = counts_of(ranked, segments, vocabulary, np.random.default_rng(1))
    found = colocalized_genes(batch, segments, edge_indptr, edges, vocabulary, counts)
    length = batch.ids.shape[1]
    ids = batch.ids.numpy()
    positions = found.positions.numpy()
    both = [
        (
            of_gene[int(ids[place // length**2, place // length % length])],
            of_gene[int(ids[place // length**2, place % length])],
        )
        for place in positions
    ]
    smaller, larger = (values.numpy() for values in found.pair_counts)
    np.testing.assert_array_equal(smaller, [min(pair) for pair in both])
    np.testing.assert_array_equal(larger, [max(pair) for pair in both])
    assert smaller.shape == found.targets.shape


def test_strata_and_their_offsets_by_hand():
    smaller, larger = torch.tensor([1.0, 1, 2, 3, 4, 8, 63, 64]), torch.tensor([1.0, 2, 3, 900, 7, 8, 64, 5000])
    assert strata(smaller, larger).tolist() == [0, 1, 8, 13, 16, 24, 41, 48]
    stratum, labels = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([1.0, 0, 0, 1, 1])
    found = offsets(stratum, labels, alpha=0.5, gamma=0.0)  # cross-entropy: the log odds
    np.testing.assert_allclose(found[:3], np.log(1.5 / 2.5), atol=1e-3)
    np.testing.assert_allclose(found[3:], np.log(2.5 / 0.5), atol=1e-3)
    focal = offsets(stratum, labels, alpha=0.25, gamma=2.0)
    logits = torch.linspace(-6, 6, 1201)
    share = 1.5 / 4
    losses = [
        share * focal_loss(logit, torch.ones(1), alpha=0.25, gamma=2.0)
        + (1 - share) * focal_loss(logit, torch.zeros(1), alpha=0.25, gamma=2.0)
        for logit in logits.split(1)
    ]
    assert float(focal[0]) == pytest.approx(float(logits[int(torch.stack(losses).argmin())]), abs=0.02)


class Pairs:
    """Targets of which only counts and labels are looked at."""

    def __init__(self, counts, targets):
        self.pair_counts, self.targets = (counts, counts), targets


def simulated_pairs(n=20_000, enriched=0.0, seed=0):
    """Pairs that are co-localised by their smaller count and, where it is not 0, by a hidden quality too."""
    generator = np.random.default_rng(seed)
    least = np.exp2(generator.integers(0, 6, n)).astype(np.float32)  # one count a stratum
    quality = generator.standard_normal(n)
    chance = 1 / (1 + np.exp(-(1.2 * np.log(least) - 4.0 + enriched * quality)))
    labels = (generator.random(n) < chance).astype(np.float32)
    return Pairs(torch.from_numpy(least), torch.from_numpy(labels)), torch.from_numpy(quality.astype(np.float32))


@pytest.mark.parametrize(
    ("answer", "enriched", "learnt"), [("counts", 1.0, False), ("quality", 1.0, True), ("quality", 0.0, False)]
)
def test_only_what_counts_do_not_tell_is_learnt(answer, enriched, learnt):
    objective = ColocalizationObjective(ColocalizationConfig())
    scores, loss = [], 0.0
    for seed in range(2):  # two processes
        targets, quality = simulated_pairs(enriched=enriched, seed=seed)
        logits = 0.3 * (targets.pair_counts[0].log() if answer == "counts" else quality)
        whole = logits + offsets(strata(*targets.pair_counts), targets.targets, alpha=0.25, gamma=2.0)
        loss += float(focal_loss(whole, targets.targets, alpha=0.25, gamma=2.0))
        one = objective.new_scores()
        one.add(Loss(torch.tensor(0.0), float(logits.numel()), logits), targets)
        scores.append(one.parts())
    metrics, verdict = objective.judge(Total(loss / 40_000, 1e-5, 40_000.0), scores)
    assert verdict.learnt == learnt
    figures = verdict.figures()
    assert figures["baseline"] == "smaller of two counts"
    assert figures["baseline_auroc"] == pytest.approx(0.5, abs=1e-6)  # one count a stratum
    assert metrics["auroc_colocalization"] == figures["auroc"]
    assert figures["auroc"] == pytest.approx(0.75 if learnt else 0.5, abs=0.05)
    assert 0 < figures["chance"] < least_focal_loss(0.3, 0.7, alpha=0.25, gamma=2.0)
    if not learnt:
        assert "and that of the smaller of two counts 0.500" in verdict.sentence()


def test_the_gradient_pushes_towards_enrichment_and_not_towards_expression():
    targets, quality = simulated_pairs(enriched=1.0)
    stratum = strata(*targets.pair_counts)
    logits = torch.zeros(quality.numel(), requires_grad=True)
    focal_loss(
        logits + offsets(stratum, targets.targets, alpha=0.5, gamma=0.0), targets.targets, alpha=0.5, gamma=0.0
    ).backward()
    push = -logits.grad.numpy()
    assert np.corrcoef(push, quality.numpy())[0, 1] > 0.15
    assert abs(np.corrcoef(push, targets.pair_counts[0].log().numpy())[0, 1]) < 0.01


def test_a_split_without_both_kinds_in_a_stratum_cannot_tell():
    objective = ColocalizationObjective(ColocalizationConfig())
    scores = objective.new_scores()
    scores.add(
        Loss(torch.tensor(0.0), 2.0, torch.tensor([0.0, 1.0])),
        Pairs(torch.tensor([1.0, 9.0]), torch.tensor([0.0, 1.0])),
    )
    _, verdict = objective.judge(Total(0.1, 0.0, 2.0), [scores.parts()])
    assert not verdict.learnt
    assert verdict.sentence().startswith("Whether anything was learnt of gene co-localisation cannot be told")
    assert "auroc" not in verdict.figures()

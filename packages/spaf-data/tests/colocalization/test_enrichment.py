from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spaf_data import InputError, Transcripts
from spaf_data.colocalization import CellTranscripts, enrichment_p, pair_enrichment, proximity_graph, select_cells


def cells_of(transcripts: Transcripts, compartment: np.ndarray | None = None) -> CellTranscripts:
    cells = select_cells(transcripts, cells=transcripts.cells, genes=pd.Index(transcripts.genes))
    return cells if compartment is None else replace(cells, compartment=compartment.astype(np.uint8))


def joins(adjacency: np.ndarray, gene: np.ndarray, a: int, b: int) -> int:
    return int(adjacency[np.ix_(gene == a, gene == b)].sum())


def one_cell(seed: int) -> tuple[Transcripts, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    transcripts = Transcripts.from_arrays(
        x=rng.uniform(0, 14, 70), y=rng.uniform(0, 10, 70), gene=rng.integers(0, 5, 70), cell=np.zeros(70, int),
        genes=list("abcde"), cells=["cell"],
    )  # fmt: skip
    adjacency = proximity_graph(np.column_stack([transcripts.x, transcripts.y])).toarray()
    return transcripts, adjacency, transcripts.x < 7.0


def test_moments_are_those_of_permuted_labels() -> None:
    transcripts, adjacency, compartment = one_cell(0)
    found = pair_enrichment(cells_of(transcripts, compartment), min_expected=1e-6).statistics
    assert len(found) == 10
    rng = np.random.default_rng(1)
    for row in found.itertuples():
        means, z = [], []
        for held, moved in ((row.gene_a, row.gene_b), (row.gene_b, row.gene_a)):
            counts = []
            for _ in range(2000):
                gene = transcripts.gene.copy()
                for side in (False, True):
                    free = np.flatnonzero((gene != held) & (compartment == side))
                    gene[free] = gene[rng.permutation(free)]
                counts.append(joins(adjacency, gene, held, moved))
            means.append(np.mean(counts))
            z.append((row.observed - means[-1]) / np.std(counts))
        assert row.observed == joins(adjacency, transcripts.gene, row.gene_a, row.gene_b)
        weaker = int(np.argmin(z))
        assert row.z == pytest.approx(z[weaker], abs=0.15)
        if abs(z[0] - z[1]) > 0.3:  # else the draws do not tell which direction is the weaker one
            assert row.expected == pytest.approx(means[weaker], rel=0.02)


def slow_statistics(transcripts: Transcripts, compartment: np.ndarray) -> dict[tuple[int, int], tuple[float, ...]]:
    """Sums over cells of joins, and of both directions' expectation and variance from the samples themselves."""
    sums: dict[tuple[int, int], np.ndarray] = {}
    for cell in range(transcripts.n_cells):
        part = slice(transcripts.offsets[cell], transcripts.offsets[cell + 1])
        gene, side = transcripts.gene[part], compartment[part]
        xyz = np.column_stack([transcripts.x[part], transcripts.y[part], transcripts.z[part]])
        adjacency = proximity_graph(xyz).toarray().astype(float)
        for a in np.unique(gene):
            for b in np.unique(gene):
                if a >= b:
                    continue
                entry = [1.0, joins(adjacency, gene, a, b)]
                for held, moved in ((a, b), (b, a)):
                    h = adjacency[:, gene == held].sum(axis=1)
                    expected = variance = 0.0
                    for s in (0, 1):
                        others = h[(gene != held) & (side == s)]
                        n, drawn = len(others), int(((gene == moved) & (side == s)).sum())
                        if n:
                            expected += drawn * others.mean()
                        if n > 1:
                            variance += drawn * (n - drawn) / (n - 1) * others.var()
                    entry += [expected, variance]
                sums[a, b] = sums.get((a, b), np.zeros(6)) + entry
    return {pair: tuple(values) for pair, values in sums.items()}


def test_slide_agrees_with_sums_over_cells_with_and_without_joins(random_slide: Callable[..., Transcripts]) -> None:
    transcripts = random_slide(np.random.default_rng(0), n_cells=12, n_transcripts=40, n_genes=9, size=25.0)
    compartment = (transcripts.y > 9.0).astype(np.uint8)
    found = pair_enrichment(cells_of(transcripts, compartment), min_expected=0.5).statistics
    slow = slow_statistics(transcripts, compartment)
    expected = {pair: s for pair, s in slow.items() if min(s[2], s[4]) >= 0.5 and min(s[3], s[5]) > 0}
    assert list(zip(found.gene_a, found.gene_b, strict=True)) == sorted(expected)
    for row in found.itertuples():
        n_cells, observed, expected_a, variance_a, expected_b, variance_b = expected[row.gene_a, row.gene_b]
        z_a, z_b = (observed - expected_a) / variance_a**0.5, (observed - expected_b) / variance_b**0.5
        assert (row.n_cells, row.observed) == (n_cells, observed)
        assert row.z == pytest.approx(min(z_a, z_b))
        assert row.expected == pytest.approx(expected_a if z_a <= z_b else expected_b)
        p = [float(enrichment_p(observed, *m)) for m in ((expected_a, variance_a), (expected_b, variance_b))]
        assert row.p == pytest.approx(max(p))
    assert np.allclose(found.fdr, stats.false_discovery_control(found.p))


def test_scores_of_cells() -> None:
    transcripts, adjacency, compartment = one_cell(2)
    found = pair_enrichment(cells_of(transcripts, compartment), min_expected=1e-6, min_transcripts=14)
    frequent = np.flatnonzero(np.bincount(transcripts.gene) >= 14)
    assert 2 <= len(frequent) < 5
    scored = found.statistics.iloc[found.pair]
    pairs = [(a, b) for a in frequent for b in frequent if a < b and joins(adjacency, transcripts.gene, a, b)]
    assert list(zip(scored.gene_a, scored.gene_b, strict=True)) == pairs
    assert np.allclose(found.z, scored.z)  # a slide of one cell
    assert found.indptr.tolist() == [0, len(pairs)]


def test_independent_of_threads_and_row_order(slide: Transcripts, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = cells_of(slide, slide.x % 40.0 < 5.0)
    reference = pair_enrichment(cells, n_threads=1)
    assert len(reference.statistics) > 50
    monkeypatch.setattr("spaf_data._batches._TRANSCRIPTS_A_BATCH", 300)
    rng = np.random.default_rng(0)
    shuffled = np.concatenate(
        [a + rng.permutation(b - a) for a, b in zip(slide.offsets[:-1], slide.offsets[1:], strict=True)]
    )
    columns = {name: getattr(cells, name)[shuffled] for name in ("x", "y", "z", "gene", "compartment")}
    for found in (
        pair_enrichment(cells, n_threads=4),
        pair_enrichment(replace(cells, **columns)),
    ):
        pd.testing.assert_frame_equal(found.statistics, reference.statistics, check_exact=True)
        assert np.array_equal(found.indptr, reference.indptr)
        assert np.array_equal(found.pair, reference.pair)
        assert np.array_equal(found.z, reference.z)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_moments_added_a_few_cells_at_a_time(
    slide: Transcripts, monkeypatch: pytest.MonkeyPatch, n_threads: int
) -> None:
    cells = cells_of(slide, slide.x % 40.0 < 5.0)
    reference = pair_enrichment(cells)
    monkeypatch.setattr("spaf_data._batches._TRANSCRIPTS_A_BATCH", 300)
    monkeypatch.setattr("spaf_data._batches._BATCHES_AHEAD", 1)
    monkeypatch.setattr("spaf_data.colocalization.enrichment._ENTRIES_AT_A_TIME", 50)
    found = pair_enrichment(cells, n_threads=n_threads)
    pd.testing.assert_frame_equal(found.statistics, reference.statistics, check_exact=True)
    assert np.array_equal(found.z, reference.z)
    without = pair_enrichment(cells, n_threads=n_threads, cell_scores=False)
    pd.testing.assert_frame_equal(without.statistics, reference.statistics, check_exact=True)
    assert without.indptr.tolist() == [0] * 31
    assert len(without.pair) == len(without.z) == 0


def test_p_values_are_not_too_small_under_the_null(random_slide: Callable[..., Transcripts]) -> None:
    p = []
    for seed in range(8):
        transcripts = random_slide(np.random.default_rng(seed), n_cells=60, n_transcripts=60, n_genes=40)
        found = pair_enrichment(cells_of(transcripts), min_expected=1.0).statistics
        p.append(found.p.to_numpy())
        assert (found.fdr < 0.05).sum() == 0
    pooled = np.concatenate(p)
    assert len(pooled) > 4000
    for level in (0.1, 0.05, 0.01, 0.001):
        assert (pooled <= level).mean() <= level
    assert (pooled <= 0.2).mean() > 0.02  # nor are they useless


def test_finds_planted_pairs_and_only_those(random_slide: Callable[..., Transcripts]) -> None:
    n_called = n_false = n_found = 0
    for seed in range(6):
        rng = np.random.default_rng(100 + seed)
        transcripts = random_slide(rng, n_cells=150, n_transcripts=80, n_genes=30)
        x, y = transcripts.x.copy(), transcripts.y.copy()
        for pair in range(4):  # genes 6 and 7, 8 and 9 ... share a spot of each cell; genes 0-5 are merely frequent
            of_pair = (transcripts.gene == 6 + 2 * pair) | (transcripts.gene == 7 + 2 * pair)
            spot = rng.uniform(0, 14, (2, transcripts.n_cells))[:, transcripts.cell[of_pair]]
            x[of_pair] = 40.0 * transcripts.cell[of_pair] + np.clip(spot[0] + rng.normal(0, 1.5, of_pair.sum()), 0, 14)
            y[of_pair] = np.clip(spot[1] + rng.normal(0, 1.5, of_pair.sum()), 0, 14)
        found = pair_enrichment(cells_of(replace(transcripts, x=x, y=y))).statistics
        called = found[found.fdr < 0.05]
        true = (called.gene_a % 2 == 0) & (called.gene_b == called.gene_a + 1) & called.gene_a.between(6, 12)
        n_called += len(called)
        n_false += int((~true).sum())
        n_found += int(true.sum())
    assert n_found == 24
    assert n_false <= 0.06 * n_called


def test_a_gene_in_a_dense_spot_is_not_near_everything(random_slide: Callable[..., Transcripts]) -> None:
    rng = np.random.default_rng(5)
    transcripts = random_slide(rng, n_cells=200, n_transcripts=80, n_genes=20)
    central = transcripts.gene == 0
    x, y = transcripts.x.copy(), transcripts.y.copy()
    x[central] = 40.0 * transcripts.cell[central] + rng.normal(7, 1.0, central.sum())
    y[central] = rng.normal(7, 1.0, central.sum())
    found = pair_enrichment(cells_of(replace(transcripts, x=x, y=y))).statistics
    assert (found.fdr < 0.05).sum() == 0


def test_genes_that_are_not_in_the_table_are_not_reported(slide: Transcripts) -> None:
    cells = select_cells(slide, cells=slide.cells, genes=pd.Index(slide.genes[5::-1]))
    found = pair_enrichment(cells).statistics
    assert found.gene_b.max() == 5
    everything = pair_enrichment(cells_of(slide)).statistics.set_index(["gene_a", "gene_b"])
    for row in found.itertuples():  # the same pair, named in the reverse order
        twin = everything.loc[(5 - row.gene_b, 5 - row.gene_a)]
        assert row.observed == twin.observed
        assert row.z == pytest.approx(twin.z)


def test_no_cells_and_no_pairs(slide: Transcripts) -> None:
    cells = cells_of(slide)
    none = np.zeros(0, np.int64)
    found = pair_enrichment(replace(cells, starts=none, stops=none))
    assert len(found.statistics) == 0
    assert found.indptr.tolist() == [0]
    single = pair_enrichment(replace(cells, starts=cells.starts[:2], stops=cells.starts[:2] + 1))
    assert len(single.statistics) == 0
    assert single.indptr.tolist() == [0, 0, 0]


def test_bad_options(slide: Transcripts) -> None:
    with pytest.raises(InputError, match="min_expected is 0"):
        pair_enrichment(cells_of(slide), min_expected=0)


def shuffled_labels(transcripts: Transcripts, rng: np.random.Generator) -> Transcripts:
    gene = transcripts.gene.copy()
    for start, stop in zip(transcripts.offsets[:-1], transcripts.offsets[1:], strict=True):
        gene[start:stop] = gene[start:stop][rng.permutation(stop - start)]
    return replace(transcripts, gene=gene)


@pytest.mark.parametrize("seed", [0, 2, 6])
def test_pairs_that_cannot_be_significant_hide_no_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_genes, n_cells = 300, 60  # 12 frequent genes, of which 0 and 1, 2 and 3, 4 and 5 lie together, weakly
    cell = np.repeat(np.arange(n_cells), 250)
    share = np.where(np.arange(n_genes) < 12, 0.03, 0.64 / (n_genes - 12))
    gene = rng.choice(n_genes, len(cell), p=share)
    x, y = rng.uniform(0, 14, (2, len(cell)))
    for pair in range(3):
        of_pair = np.isin(gene, (2 * pair, 2 * pair + 1)) & (rng.random(len(cell)) < 0.27)
        spot = rng.uniform(0, 14, (2, n_cells))[:, cell[of_pair]]
        x[of_pair], y[of_pair] = np.clip(spot + rng.normal(0, 2, spot.shape), 0, 14)
    transcripts = Transcripts.from_arrays(
        x=x + 40.0 * cell, y=y, gene=gene, cell=cell, genes=[f"G{k:03d}" for k in range(n_genes)],
        cells=[f"c{k}" for k in range(n_cells)],
    )  # fmt: skip
    everything = pair_enrichment(cells_of(transcripts), min_expected=1.0)
    assert everything.n_tested > 44_000
    assert (everything.statistics.fdr < 0.05).sum() == 0
    found = pair_enrichment(cells_of(transcripts))
    assert 3400 < found.n_tested < 3600
    assert found.least_expected > 25.0
    called = found.statistics[found.statistics.fdr < 0.05]
    assert len(called) == 1
    assert ((called.gene_a < 6) & (called.gene_a % 2 == 0) & (called.gene_b == called.gene_a + 1)).all()
    control = pair_enrichment(cells_of(shuffled_labels(transcripts, rng)))
    assert control.n_tested > 3400
    assert (control.statistics.fdr < 0.05).sum() == 0


def test_tested_are_the_pairs_of_which_twice_the_joins_would_be_significant(
    random_slide: Callable[..., Transcripts],
) -> None:
    transcripts = random_slide(np.random.default_rng(9), n_cells=20, n_transcripts=60, n_genes=15)
    found = pair_enrichment(cells_of(transcripts)).statistics
    slow = slow_statistics(transcripts, np.zeros(transcripts.n_transcripts, np.uint8))
    within_reach = set()
    for pair, (_, _, expected_a, variance_a, expected_b, variance_b) in slow.items():
        twice = 2 * max(expected_a, expected_b)
        p = [float(enrichment_p(twice, *m)) for m in ((expected_a, variance_a), (expected_b, variance_b))]
        if max(p) <= 0.05 / (15 * 14 // 2):
            within_reach.add(pair)
    assert 20 < len(within_reach) < 15 * 14 // 2
    assert set(zip(found.gene_a, found.gene_b, strict=True)) == within_reach


def test_pairs_that_were_not_seen_are_tested_and_not_kept(random_slide: Callable[..., Transcripts]) -> None:
    transcripts = random_slide(np.random.default_rng(7), n_cells=40, n_transcripts=40, n_genes=40)
    together = transcripts.gene < 2
    x = np.where(together, 40.0 * transcripts.cell + 3.0, transcripts.x)
    found = pair_enrichment(cells_of(replace(transcripts, x=x)), min_expected=0.5)
    assert (found.statistics.observed > 0).all()
    assert len(found.statistics) < found.n_tested
    assert found.n_pairs == 40 * 39 // 2 == found.n_too_few + found.n_tested
    best = found.statistics.iloc[found.statistics.p.argmin()]
    assert (best.gene_a, best.gene_b) == (0, 1)
    assert best.fdr == pytest.approx(best.p * found.n_tested)  # those that were not seen count among the tests
    assert found.pair.max() < len(found.statistics)


def test_weaker_direction_has_nothing_to_spare_beside_a_gene_in_a_dense_spot(
    random_slide: Callable[..., Transcripts],
) -> None:
    """The p-value is conservative under shuffled labels, and yet no smaller one would hold here."""
    p = []
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        transcripts = random_slide(rng, n_cells=200, n_transcripts=80, n_genes=20)
        x, y = transcripts.x.copy(), transcripts.y.copy()
        middle = transcripts.gene == 0
        dense = middle | (rng.random(len(x)) < 0.5)
        spread = np.where(middle, 1.0, 2.0)[dense]
        x[dense] = 40.0 * transcripts.cell[dense] + rng.normal(7, spread)
        y[dense] = rng.normal(7, spread)
        found = pair_enrichment(cells_of(replace(transcripts, x=x, y=y))).statistics
        p.append(found.p[found.gene_a == 0].to_numpy())
    pooled = np.concatenate(p)
    assert len(pooled) == 60 * 19
    for level in (0.05, 0.01):
        error = 3 * (level * (1 - level) / len(pooled)) ** 0.5
        assert abs((pooled <= level).mean() - level) < error

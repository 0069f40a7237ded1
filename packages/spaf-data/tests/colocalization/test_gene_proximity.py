from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from spaf_data import GeneProximity, InputError, Transcripts, gene_proximity


def crowded(seed: int, *, n_cells: int = 12, n: int = 50, n_genes: int = 9, depth: float = 4.0) -> Transcripts:
    """Cells in two rows that overlap, of 20 to `n` transcripts, the genes of each drawn from its own mixture."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, n + 1, n_cells)
    cell = np.repeat(np.arange(n_cells), sizes)
    mixtures = rng.dirichlet(np.full(n_genes, 0.6), n_cells)
    return Transcripts.from_arrays(
        x=rng.uniform(0, 11, len(cell)) + 8.0 * (cell % (n_cells // 2)),
        y=rng.uniform(0, 11, len(cell)) + 8.0 * (cell // (n_cells // 2)),
        z=rng.uniform(0, depth, len(cell)),
        gene=np.array([rng.choice(n_genes, p=mixtures[c]) for c in cell]),
        cell=cell,
        genes=[f"G{k}" for k in range(n_genes)],
        cells=[f"c{k}" for k in range(n_cells)],
    )


def slow_proximity(
    transcripts: Transcripts, radius: float, *, across_cells: bool, flat: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Observed and expected pairs, by a k-d tree over all transcripts and one loop a pair of cells."""
    n_genes, cell = transcripts.n_genes, transcripts.cell
    axes = (transcripts.x, transcripts.y) if flat else (transcripts.x, transcripts.y, transcripts.z)
    pairs = cKDTree(np.column_stack(axes).astype(float)).query_pairs(radius, output_type="ndarray")
    counts = np.zeros((transcripts.n_cells, n_genes))
    np.add.at(counts, (cell, transcripts.gene), 1)
    observed = np.zeros((n_genes, n_genes), int)
    between: dict[tuple[int, int], int] = {}
    for i, j in pairs:
        if cell[i] != cell[j] and not across_cells:
            continue
        a, b = sorted((transcripts.gene[i], transcripts.gene[j]))
        observed[a, b] += 1
        of_cells = (min(cell[i], cell[j]), max(cell[i], cell[j]))
        between[of_cells] = between.get(of_cells, 0) + 1
    expected = np.zeros((n_genes, n_genes))
    for (i, j), number in between.items():
        n, m = counts[i], counts[j]
        if i == j:
            ways = np.outer(n, n)
            np.fill_diagonal(ways, n * (n - 1) / 2)
            expected += number * ways / (n.sum() * (n.sum() - 1) / 2)
        else:
            ways = np.outer(n, m) + np.outer(m, n)
            np.fill_diagonal(ways, n * m)
            expected += number * ways / (n.sum() * m.sum())
    return observed + np.triu(observed, 1).T, expected


@pytest.mark.parametrize("across_cells", [False, True])
@pytest.mark.parametrize(("seed", "radius"), [(0, 1.0), (1, 3.0), (2, 40.0)])
def test_counts_are_those_of_a_tree(seed: int, radius: float, across_cells: bool) -> None:
    transcripts = crowded(seed)
    found = gene_proximity(transcripts, radius=radius, across_cells=across_cells)
    observed, expected = slow_proximity(transcripts, radius, across_cells=across_cells)
    assert observed.sum() > 50
    np.testing.assert_array_equal(found.observed, observed)
    np.testing.assert_allclose(found.expected, expected, rtol=1e-12)
    assert np.triu(found.expected).sum() == pytest.approx(np.triu(found.observed).sum())
    assert found.n_pairs == np.triu(observed).sum()
    assert found.n_transcripts.tolist() == np.bincount(transcripts.gene, minlength=9).tolist()
    assert (found.n_cells, found.radius, found.across_cells) == (12, radius, across_cells)


def test_pairs_across_cells_are_more(slide: Transcripts) -> None:
    transcripts = crowded(3)
    inside = gene_proximity(transcripts).observed
    both = gene_proximity(transcripts, across_cells=True).observed
    assert (both >= inside).all()
    assert both.sum() > 1.2 * inside.sum()
    apart = [gene_proximity(slide, across_cells=across).observed for across in (False, True)]  # cells 26 um apart
    np.testing.assert_array_equal(*apart)


def test_z_counts_where_it_varies() -> None:
    transcripts = crowded(4, depth=12.0)
    observed, _ = slow_proximity(transcripts, 3.0, across_cells=False, flat=True)
    np.testing.assert_array_equal(gene_proximity(transcripts, dimensions=2).observed, observed)
    assert gene_proximity(transcripts).observed.sum() < observed.sum()


def test_threads_and_the_order_of_cells_change_nothing(random_slide: Callable[..., Transcripts]) -> None:
    slide = random_slide(np.random.default_rng(5), n_cells=400, n_transcripts=100, n_genes=12)
    one = gene_proximity(slide, n_threads=1)
    two = gene_proximity(slide, n_threads=2)
    np.testing.assert_array_equal(one.observed, two.observed)
    np.testing.assert_array_equal(one.expected, two.expected)
    shuffled = gene_proximity(slide, cells=np.random.default_rng(0).permutation(slide.cells), across_cells=True)
    np.testing.assert_array_equal(one.observed, shuffled.observed)
    np.testing.assert_allclose(one.expected, shuffled.expected, rtol=1e-12)


def test_genes_that_share_a_spot_exceed_what_their_cells_give() -> None:
    rng = np.random.default_rng(6)
    n_cells = 60
    cell = np.repeat(np.arange(n_cells), 60)
    gene = np.tile(np.repeat(np.arange(6), 10), n_cells)
    x, y = rng.uniform(0, 14, (2, len(cell)))
    spot = gene < 2  # the first two genes of each cell lie in one corner
    x[spot], y[spot] = rng.uniform(0, 3, (2, spot.sum()))
    found = gene_proximity(
        Transcripts.from_arrays(
            x=x, y=y, gene=gene, cell=cell, genes=list("abcdef"), cells=[str(c) for c in range(n_cells)]
        )
    )
    ratio = found.observed / found.expected
    assert ratio[0, 1] > 3
    assert (ratio[2:, 2:] < 1).all()
    assert ratio[2:, 2:].std() < 0.1


def test_slides_add_up_by_gene() -> None:
    whole = crowded(7)
    parts = [gene_proximity(whole, cells=whole.cells[rows]) for rows in (slice(0, 5), slice(5, None))]
    together = GeneProximity.total(parts)
    expected = gene_proximity(whole)
    np.testing.assert_array_equal(together.observed, expected.observed)
    np.testing.assert_allclose(together.expected, expected.expected)
    assert (together.n_cells, together.n_pairs) == (12, expected.n_pairs)
    other = gene_proximity(replace(whole, genes=["G0", "NEW", *whole.genes[2:]], gene_ids=["E0", "E1", *[""] * 7]))
    joined = GeneProximity.total([expected, other])
    assert joined.genes == [*whole.genes, "NEW"]
    assert joined.gene_ids == ["E0", *[""] * 8, "E1"]
    assert joined.observed[0, 0] == 2 * expected.observed[0, 0]
    assert joined.observed[1, 9] == 0
    assert joined.observed[0, 9] == joined.observed[9, 0] == expected.observed[0, 1]
    assert joined.n_transcripts[9] == expected.n_transcripts[1]


def test_what_cannot_be_used_is_named() -> None:
    transcripts = crowded(8)
    with pytest.raises(InputError, match="radius is 0"):
        gene_proximity(transcripts, radius=0.0)
    with pytest.raises(InputError, match="the first is 'nowhere'"):
        gene_proximity(transcripts, cells=np.array(["c1", "nowhere"]))
    with pytest.raises(InputError, match="named twice"):
        gene_proximity(transcripts, cells=np.array(["c1", "c1"]))
    with pytest.raises(InputError, match="no slide"):
        GeneProximity.total([])
    with pytest.raises(InputError, match="different radius"):
        GeneProximity.total([gene_proximity(transcripts, radius=r) for r in (1.0, 2.0)])
    with pytest.raises(InputError, match="n_threads"):
        gene_proximity(transcripts, n_threads=0)


def test_progress_ends_at_one(slide: Transcripts) -> None:
    seen: list[float] = []
    gene_proximity(slide, progress=seen.append)
    assert seen[-1] == 1.0
    assert seen == sorted(seen)

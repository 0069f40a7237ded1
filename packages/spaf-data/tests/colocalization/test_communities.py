from collections import Counter
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from spaf_data import InputError, Transcripts
from spaf_data.colocalization import CellPairs, CellTranscripts, community_pairs, select_cells
from spaf_data.colocalization.communities import pairs_of_communities


def published_rule(gene: np.ndarray, labels: np.ndarray, min_transcripts: int) -> list[tuple[int, int]]:
    pairs = set()
    for community in set(labels.tolist()):
        counts = Counter(g for g, label in zip(gene.tolist(), labels.tolist(), strict=True) if label == community)
        frequent = sorted(g for g, n in counts.items() if n >= min_transcripts)
        pairs.update(combinations(frequent, 2))
    return sorted(pairs)


def cells_of(transcripts: Transcripts) -> CellTranscripts:
    return select_cells(transcripts, cells=transcripts.cells, genes=pd.Index(transcripts.genes))


def rows(found: CellPairs, cell: int) -> list[tuple[int, int]]:
    part = slice(found.indptr[cell], found.indptr[cell + 1])
    return list(zip(found.gene_a[part].tolist(), found.gene_b[part].tolist(), strict=True))


@pytest.mark.parametrize("min_transcripts", [1, 3])
def test_rule_given_a_partition(min_transcripts: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        # Two cells, of which the first has four communities and the second three.
        gene = rng.integers(0, 12, 150).astype(np.int32)
        labels = np.concatenate([rng.integers(0, 4, 90), rng.integers(4, 7, 60)]).astype(np.int32)
        cell, keys = pairs_of_communities(
            gene, labels, np.repeat([0, 1], [4, 3]), n_genes=12, n_known=12, min_transcripts=min_transcripts
        )
        for number, part in enumerate((slice(0, 90), slice(90, 150))):
            expected = published_rule(gene[part], labels[part], min_transcripts)
            assert [divmod(int(key), 12) for key in keys[cell == number]] == expected


def test_pairs_of_cells_agree_with_the_rule(kernels: SimpleNamespace, slide: Transcripts) -> None:
    cells = cells_of(slide)
    found = community_pairs(cells)
    n_pairs = 0
    for cell in range(slide.n_cells):
        part = slice(slide.offsets[cell], slide.offsets[cell + 1])
        columns = (slide.x[part], slide.y[part], slide.z[part], slide.gene[part])
        order, graph = kernels.arrange(*columns, 5.0)
        labels, _ = kernels.find_communities(graph, 4096, 0)
        # Labels stay with their own transcripts: genes are taken in the order of the nodes.
        expected = published_rule(slide.gene[part][order], labels, 3)
        assert rows(found, cell) == expected
        n_pairs += len(expected)
    assert n_pairs > 100


def test_two_distant_groups_form_no_pair_between_them() -> None:
    transcripts = Transcripts.from_arrays(
        x=np.repeat([0.0, 1.0, 30.0, 31.0], 3), y=np.zeros(12), gene=np.repeat([3, 1, 2, 0], 3), cell=np.zeros(12, int),
        genes=["a", "b", "c", "d"], cells=["cell"],
    )  # fmt: skip
    found = community_pairs(cells_of(transcripts))
    assert rows(found, 0) == [(0, 2), (1, 3)]


def test_independent_of_threads_storage_and_cell_order(slide: Transcripts) -> None:
    cells = cells_of(slide)
    reference = community_pairs(cells, n_threads=1)
    sparse_reference = community_pairs(cells, max_dense=0)
    for expected, options in (
        (reference, {"n_threads": 3}),
        (reference, {"max_stored": 0}),
        (sparse_reference, {"n_threads": 3, "max_dense": 0}),
        (sparse_reference, {"max_stored": 0, "max_dense": 0}),
    ):
        found = community_pairs(cells, **options)
        assert np.array_equal(found.indptr, expected.indptr)
        assert np.array_equal(found.gene_a, expected.gene_a)
        assert np.array_equal(found.gene_b, expected.gene_b)
    backwards = community_pairs(replace(cells, starts=cells.starts[::-1].copy(), stops=cells.stops[::-1].copy()))
    assert [rows(backwards, 29 - k) for k in range(30)] == [rows(reference, k) for k in range(30)]


def test_threads_share_batches(monkeypatch: pytest.MonkeyPatch, slide: Transcripts) -> None:
    cells = cells_of(slide)
    reference = community_pairs(cells, n_threads=1)
    monkeypatch.setattr("spaf_data._batches._TRANSCRIPTS_A_BATCH", 300)
    found = community_pairs(cells, n_threads=4)
    assert np.array_equal(found.indptr, reference.indptr)
    assert np.array_equal(found.gene_b, reference.gene_b)


def test_independent_of_row_order(slide: Transcripts) -> None:
    cells = cells_of(slide)
    reference = community_pairs(cells)
    rng = np.random.default_rng(0)
    rows_shuffled = np.concatenate(
        [a + rng.permutation(b - a) for a, b in zip(slide.offsets[:-1], slide.offsets[1:], strict=True)]
    )
    columns = {name: getattr(cells, name)[rows_shuffled] for name in ("x", "y", "z", "gene", "compartment")}
    found = community_pairs(replace(cells, **columns))
    assert np.array_equal(found.indptr, reference.indptr)
    assert np.array_equal(found.gene_b, reference.gene_b)


def test_small_and_degenerate_cells() -> None:
    # One transcript; twelve at one point; twelve too far apart.
    transcripts = Transcripts.from_arrays(
        x=np.concatenate(([0.0], np.full(12, 50.0), 10.0 * np.arange(12))), y=np.zeros(25),
        gene=np.concatenate(([0], np.tile([0, 1], 12))), cell=np.repeat([0, 1, 2], [1, 12, 12]),
        genes=["a", "b"], cells=["one", "point", "apart"],
    )  # fmt: skip
    found = community_pairs(cells_of(transcripts))
    assert [rows(found, cell) for cell in range(3)] == [[], [(0, 1)], []]


def test_no_cells() -> None:
    transcripts = Transcripts.from_arrays(
        x=np.zeros(1), y=np.zeros(1), gene=np.zeros(1, int), cell=np.zeros(1, int), genes=["a"], cells=["c"]
    )
    cells = replace(cells_of(transcripts), starts=np.zeros(0, np.int64), stops=np.zeros(0, np.int64))
    found = community_pairs(cells)
    assert found.indptr.tolist() == [0]
    assert found.gene_a.shape == (0,)


@pytest.mark.parametrize("options", [{"min_transcripts": 0}, {"radius": -1.0}, {"n_threads": 0}])
def test_bad_options(slide: Transcripts, options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        community_pairs(cells_of(slide), **options)

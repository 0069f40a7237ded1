import anndata
import numpy as np
import pytest
import torch

from spaf_model import (
    CellSource,
    InputError,
    RankedCells,
    ReadingOptions,
    ReadsPairs,
    SpatialFormer,
    TokenBatch,
    Vocabulary,
    rank_genes,
    sequence_lengths,
)
from spaf_model.spatialformer import SequencedCells


def test_single_cells_are_laid_out_as_documented(
    ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary
) -> None:
    cells = np.array([4, 0, 9])
    batch = TokenBatch.from_cells(ranked, context, cells, vocabulary)
    rows = [
        [vocabulary.cls, *context[cell], *ranked.tokens[ranked.indptr[cell] : ranked.indptr[cell + 1]], vocabulary.sep]
        for cell in cells
    ]
    width = max(map(len, rows))
    assert batch.ids.tolist() == [row + [vocabulary.pad] * (width - len(row)) for row in rows]
    assert batch.types.tolist() == [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    assert batch.lengths.tolist() == [[len(row), 0] for row in rows]
    assert batch.mask.tolist() == [[True] * len(row) + [False] * (width - len(row)) for row in rows]
    assert {tensor.dtype for tensor in (batch.ids, batch.types, batch.lengths)} == {torch.int64}


def test_pairs_are_laid_out_as_documented(ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary) -> None:
    left, right = np.array([3, 1, 1]), np.array([8, 2, 1])
    batch = TokenBatch.from_pairs(ranked, context, left, right, vocabulary)

    def segment(cell: int) -> list[int]:
        genes = ranked.tokens[ranked.indptr[cell] : ranked.indptr[cell + 1]]
        return [*context[cell], *genes, vocabulary.sep]

    for row, (first, second) in enumerate(zip(left, right, strict=True)):
        expected = [vocabulary.cls, *segment(first), *segment(second)]
        n_first = 1 + len(segment(first))
        assert batch.lengths[row].tolist() == [n_first, len(segment(second))]
        assert batch.ids[row, : len(expected)].tolist() == expected
        assert batch.types[row, : len(expected)].tolist() == [1] * n_first + [2] * len(segment(second))
        assert (batch.ids[row, len(expected) :] == vocabulary.pad).all()
        assert (batch.types[row, len(expected) :] == 0).all()


def test_cell_without_genes_and_empty_batch(context: np.ndarray, vocabulary: Vocabulary) -> None:
    ranked = RankedCells(indptr=np.array([0, 0]), tokens=np.zeros(0, dtype=np.int64))
    batch = TokenBatch.from_cells(ranked, context[:1], np.array([0]), vocabulary)
    assert batch.ids.tolist() == [[vocabulary.cls, *context[0], vocabulary.sep]]
    assert TokenBatch.from_cells(ranked, context[:1], np.array([], dtype=int), vocabulary).ids.shape == (0, 0)


def test_bad_arguments(ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="equal lengths"):
        TokenBatch.from_pairs(ranked, context, np.array([1]), np.array([1, 2]), vocabulary)
    with pytest.raises(InputError, match="from 0 to 29"):
        TokenBatch.from_cells(ranked, context, np.array([30]), vocabulary)
    with pytest.raises(InputError, match=r"shape \(30, 4\)"):
        TokenBatch.from_cells(ranked, context[:5], np.array([0]), vocabulary)


def test_tokeniser_ranks_counts_and_makes_the_batches_of_old(
    model: SpatialFormer, adata: anndata.AnnData, vocabulary: Vocabulary
) -> None:
    dense = adata.X.toarray()
    dense[3] = 0
    adata.X = dense
    counts = CellSource(adata, vocabulary, ReadingOptions()).read()
    cells = model.tokeniser(counts)
    ranked = rank_genes(counts.indptr, counts.tokens, counts.counts, vocabulary.scale)
    np.testing.assert_array_equal(cells.ranked.tokens, ranked.tokens)
    rows = np.array([5, 1, 8])
    batch, expected = cells.batch(rows), TokenBatch.from_cells(ranked, counts.context, rows, vocabulary)
    assert torch.equal(batch.ids, expected.ids)
    assert cells.lengths[3] == 0
    assert cells.lengths[rows].tolist() == batch.lengths[:, 0].tolist()
    assert batch.n_tokens == int(batch.mask.sum())
    again = model.tokeniser(counts)
    assert torch.equal(again.batch(rows).ids, batch.ids)


def test_lengths_of_sequences_are_those_of_batches(
    ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary
) -> None:
    left, right = np.array([0, 4]), np.array([2, 4])
    cells = TokenBatch.from_cells(ranked, context, left, vocabulary)
    pairs = TokenBatch.from_pairs(ranked, context, left, right, vocabulary)
    n_genes = ranked.n_genes
    assert sequence_lengths(n_genes[left]).tolist() == cells.mask.sum(dim=1).tolist()
    assert sequence_lengths(n_genes[left], n_genes[right]).tolist() == pairs.mask.sum(dim=1).tolist()


def test_pairs_of_tokenised_cells_have_the_lengths_that_are_told(
    ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary
) -> None:
    cells = SequencedCells(ranked, context, vocabulary)
    assert isinstance(cells, ReadsPairs)
    left, right = np.array([3, 1, 1]), np.array([8, 2, 1])
    batch = cells.pair_batch(left, right)
    assert batch.lengths.sum(dim=1).tolist() == cells.pair_lengths(left, right).tolist()
    assert torch.equal(batch.ids, TokenBatch.from_pairs(ranked, context, left, right, vocabulary).ids)


def test_a_batch_is_divided_without_needless_padding_and_joined(
    ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary
) -> None:
    batch = TokenBatch.from_cells(ranked, context, np.arange(7), vocabulary)
    parts = batch.split([2, 4, 1])
    assert [part.ids.shape[0] for part in parts] == [2, 4, 1]
    assert sum(part.n_tokens for part in parts) == batch.n_tokens
    for part in parts:
        assert part.mask.any(dim=0).all()
    states = batch.joined([part.ids.unsqueeze(-1).float() for part in parts]).squeeze(-1)
    assert torch.equal(states * batch.mask, batch.ids * batch.mask)

import numpy as np
import torch

from spaf_model import CellCounts, Vocabulary
from spaf_model.scgpt_spatial import (
    ScGPTSpatialConfig,
    ScGPTSpatialTokeniser,
    ValueBatch,
    ValuedCells,
    technology_names,
)
from spaf_model.scgpt_spatial.tokeniser import n_table_rows


def tokenised(vocabulary: Vocabulary, cells: CellCounts) -> ValuedCells:
    return ScGPTSpatialTokeniser(vocabulary, ScGPTSpatialConfig())(cells)


def test_a_batch_is_cls_and_the_genes_of_each_cell(vocabulary: Vocabulary, cells: CellCounts) -> None:
    found = tokenised(vocabulary, cells)
    assert found.lengths.tolist() == [n + 1 if n else 0 for n in cells.n_genes]
    chosen = np.array([4, 2, 9])
    batch = found.batch(chosen)
    assert batch.ids[:, 0].tolist() == [vocabulary.cls] * 3
    assert batch.n_tokens == int(found.lengths[chosen].sum())
    assert batch.asked_ids is None
    assert batch.asked_mask.shape == (3, 0)
    for row, cell in enumerate(chosen):
        entries = slice(found.genes.indptr[cell], found.genes.indptr[cell + 1])
        n = found.lengths[cell]
        assert batch.ids[row, 1:n].tolist() == found.genes.tokens[entries].tolist()
        assert batch.values[row, 1:n].tolist() == found.genes.values[entries].tolist()
        assert batch.ids[row, n:].tolist() == [vocabulary.pad] * (batch.ids.shape[1] - n)
        assert set(batch.values[row, n:].tolist()) <= {-2.0}
        assert batch.values[row, 0] == -2.0
        own = slice(cells.indptr[cell], cells.indptr[cell + 1])
        assert set(batch.ids[row, 1:n].tolist()) == set(cells.tokens[own].tolist())
        assert batch.totals[row] == cells.counts[own].sum()
        assert batch.technologies[row] == cell % 3
    assert torch.equal(batch.mask.sum(dim=1), batch.lengths)


def test_genes_asked_for_are_apart(vocabulary: Vocabulary, cells: CellCounts) -> None:
    found = tokenised(vocabulary, cells)
    is_asked = np.random.default_rng(0).random(found.genes.tokens.size) < 0.5
    chosen = np.flatnonzero(found.lengths)[:6]
    batch, entries = found.split_batch(chosen, is_asked)
    assert batch.asked_ids is not None
    assert batch.asked_lengths is not None
    for row, cell in enumerate(chosen):
        own = np.arange(found.genes.indptr[cell], found.genes.indptr[cell + 1])
        n = int(batch.asked_lengths[row])
        assert entries[row, :n].tolist() == own[is_asked[own]].tolist()
        assert (entries[row, n:] == -1).all()
        assert batch.asked_ids[row, :n].tolist() == found.genes.tokens[own[is_asked[own]]].tolist()
        assert batch.ids[row, 1 : batch.lengths[row]].tolist() == found.genes.tokens[own[~is_asked[own]]].tolist()
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.asked_ids, batch.asked_ids)
    assert batch.n_tokens == int(found.lengths[chosen].sum())


def test_a_batch_in_parts_is_the_batch(vocabulary: Vocabulary, cells: CellCounts) -> None:
    found = tokenised(vocabulary, cells)
    is_asked = np.random.default_rng(0).random(found.genes.tokens.size) < 0.5
    chosen = np.arange(7)  # one of them without a gene
    assert (found.lengths[chosen] == 0).any() or (found.lengths == 0).any()
    for batch in (found.batch(chosen), found.split_batch(chosen, is_asked)[0]):
        parts = batch.split([3, 0, 4])
        assert [part.ids.shape[0] for part in parts] == [3, 0, 4]
        assert parts[0].ids.shape[1] == int(batch.lengths[:3].max())
        assert sum(part.n_tokens for part in parts) == batch.n_tokens

        def numbered(part: ValueBatch) -> torch.Tensor:
            asked = torch.zeros((part.ids.shape[0], 0)) if part.asked_ids is None else part.asked_ids
            real = torch.cat([part.mask, part.asked_mask], dim=1)
            return (torch.cat([part.ids, asked], dim=1) * real).unsqueeze(-1).float()

        whole = batch.joined([numbered(part) for part in parts])
        assert torch.equal(whole, numbered(batch))


def test_no_cell_and_cells_without_a_technology(vocabulary: Vocabulary, cells: CellCounts) -> None:
    cells.context[5, 3] = -1
    found = tokenised(vocabulary, cells)
    assert found.technologies[5] == -1
    assert found.technologies[4] == 1
    assert found.batch(np.zeros(0, dtype=np.int64)).ids.shape == (0, 0)


def test_rows_of_the_tables(vocabulary: Vocabulary) -> None:
    assert technology_names(vocabulary) == ["merfish", "visium", "xenium"]
    assert n_table_rows(vocabulary) == vocabulary.n_tokens
    # As a published vocabulary has them: technologies behind all that has a row in the gene table.
    behind = Vocabulary(
        ["A", "B", "<pad>", "<cls>", "assay:x", "assay:y"], special={"pad": 2, "cls": 3},
        context={"assay": {"y": 5, "x": 4}}, scale=[1.0] * 6,
    )  # fmt: skip
    assert n_table_rows(behind) == 4
    assert technology_names(behind) == ["x", "y"]

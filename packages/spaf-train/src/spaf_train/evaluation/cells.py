"""The cells of a split of a corpus, in memory, and what a model of any family is given of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_model import CellCounts, InputError, Model, context_ids
from spaf_train._csr import csr_rows
from spaf_train.evaluation.placed_cells import drawn_tissue
from spaf_train.stream.window import cell_counts, tokens_of

if TYPE_CHECKING:
    from spaf_data import BlockRef, Corpus


@dataclasses.dataclass(frozen=True)
class CorpusCells:
    """Cells of a corpus, each once."""

    counts: sparse.csr_matrix  # int32, cells x genes of the corpus
    coordinates: NDArray[np.float64]  # (n_cells, 2), um
    slide: NDArray[np.str_]  # (n_cells,)
    edge_indptr: NDArray[np.int64]  # (n_cells + 1,), of edges
    edges: NDArray[np.int64]  # (n_edges, 2), gene codes a < b that are co-localised in the cell
    knows_gene_pairs: NDArray[np.bool_]  # (n_cells,), False where nothing is known of which genes are co-localised
    names: NDArray[np.str_]  # (n_cells,)

    def __len__(self) -> int:
        return int(self.slide.size)

    def take(self, rows: NDArray[np.int64]) -> CorpusCells:
        """Return some of the cells."""
        index, n_edges = csr_rows(self.edge_indptr, rows)
        return CorpusCells(
            counts=sparse.csr_matrix(self.counts[rows]),
            coordinates=self.coordinates[rows],
            slide=self.slide[rows],
            edge_indptr=np.concatenate([[0], np.cumsum(n_edges)]),
            edges=self.edges[index],
            knows_gene_pairs=self.knows_gene_pairs[rows],
            names=self.names[rows],
        )


def read_cells(corpus: Corpus, split: str, *, max_cells: int, seed: int) -> CorpusCells:
    """Read the cells of a split, whole blocks at a time, so that the neighbours of a cell are mostly there.

    Parameters
    ----------
    corpus
        Where the blocks are.
    split
        ``"train"``, ``"validation"``, ...
    max_cells
        Where the split has more, blocks are drawn at random until so many cells are reached.
    seed
        Of the draw.

    Raises
    ------
    InputError
        If the corpus has no such split.
    """
    refs = corpus.block_refs(split)
    order = np.random.default_rng([seed, len(refs)]).permutation(len(refs))
    before = np.concatenate([[0], np.cumsum([refs[place].n_owned for place in order])])[:-1]
    return cells_of_blocks(corpus, [refs[place] for place in np.sort(order[before < max_cells])])


def read_tissue(corpus: Corpus, split: str, *, max_cells: int, seed: int) -> CorpusCells:
    """Read the cells of a split, or where it has more whole tiles of tissue, drawn without regard to blocks.

    `drawn_tissue` draws the same cells from an AnnData. Every block is looked at for the places of its cells, and those
    with drawn cells a second time.

    Raises
    ------
    InputError
        If the corpus has no such split.
    """
    refs = corpus.block_refs(split)
    n_owned = np.array([ref.n_owned for ref in refs])
    if n_owned.sum() <= max_cells:
        return cells_of_blocks(corpus, refs)
    places = [(block.coordinates[: block.n_owned].copy(), block.slide) for block in map(corpus.read, refs)]
    coordinates = np.concatenate([xy for xy, _ in places])
    slide = np.repeat([name for _, name in places], n_owned)
    drawn = drawn_tissue(coordinates, slide, max_cells=max_cells, distances=corpus.distances, seed=seed)
    of_block = np.repeat(np.arange(len(refs)), n_owned)[drawn]
    held = np.unique(of_block)
    first = np.concatenate([[0], np.cumsum(n_owned)])
    first_held = np.concatenate([[0], np.cumsum(n_owned[held])])
    cells = cells_of_blocks(corpus, [refs[block] for block in held])
    return cells.take(drawn - first[of_block] + first_held[np.searchsorted(held, of_block)])


def cells_of_blocks(corpus: Corpus, refs: Sequence[BlockRef]) -> CorpusCells:
    """Read the cells that some blocks own, at least one block, in their order."""
    blocks = [corpus.read(ref) for ref in refs]
    indptr = [np.diff(block.indptr[: block.n_owned + 1]) for block in blocks]
    edge_indptr = [np.diff(block.colocalized_indptr[: block.n_owned + 1]) for block in blocks]
    n_entries = [int(lengths.sum()) for lengths in indptr]
    n_edges = [int(lengths.sum()) for lengths in edge_indptr]
    owned = [block.n_owned for block in blocks]
    return CorpusCells(
        counts=sparse.csr_matrix(
            (
                np.concatenate([block.counts[:n] for block, n in zip(blocks, n_entries, strict=True)]),
                np.concatenate([block.genes[:n] for block, n in zip(blocks, n_entries, strict=True)]),
                np.concatenate([[0], np.cumsum(np.concatenate(indptr))]),
            ),
            shape=(sum(owned), len(corpus.genes)),
        ),
        coordinates=np.concatenate([block.coordinates[: block.n_owned] for block in blocks]).astype(np.float64),
        slide=np.repeat([block.slide for block in blocks], owned),
        edge_indptr=np.concatenate([[0], np.cumsum(np.concatenate(edge_indptr))]),
        edges=np.concatenate([block.colocalized[:n] for block, n in zip(blocks, n_edges, strict=True)]).astype(
            np.int64
        ),
        knows_gene_pairs=np.repeat([corpus.knows_gene_pairs(block.slide) for block in blocks], owned),
        names=np.concatenate([block.cell_ids[: block.n_owned] for block in blocks]),
    )


@dataclasses.dataclass(frozen=True)
class ReadCells:
    """Cells of a corpus with what a model is given of them.

    Attributes
    ----------
    cells
        As the corpus has them.
    counts
        The same in tokens of the model.
    token_of_gene
        (n_genes,), -1 for genes that the model does not know.
    whole, place
        For a model that reads whole slides, all cells of these slides in the corpus, and which of them each cell is.
    """

    cells: CorpusCells
    counts: CellCounts
    token_of_gene: NDArray[np.int64]
    whole: CellCounts | None = None
    place: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, rows: NDArray[np.int64]) -> ReadCells:
        """Return some of the cells."""
        place = None if self.place is None else self.place[rows]
        return ReadCells(self.cells.take(rows), self.counts.take(rows), self.token_of_gene, self.whole, place)


def with_counts(cells: CorpusCells, corpus: Corpus, model: Model[Any, Any]) -> ReadCells:
    """Return cells with their counts in the tokens of a model, and the contexts of their slides.

    Raises
    ------
    InputError
        If too few genes of the corpus are known, or a context is not.
    """
    vocabulary = model.vocabulary
    token_of_gene = vocabulary.match(corpus.genes, corpus.gene_ids).token_ids
    names, of_cell = np.unique(cells.slide, return_inverse=True)
    slides = pd.DataFrame([corpus.slides[name] for name in names], index=names)
    panels = [tokens_of(corpus.measured(name), token_of_gene, vocabulary.n_tokens) for name in names]
    counts = cell_counts(
        cells.counts.indptr.astype(np.int64),
        token_of_gene[cells.counts.indices],
        cells.counts.data,
        tokens_of(np.ones(len(corpus.genes), dtype=bool), token_of_gene, vocabulary.n_tokens),
        context=context_ids(vocabulary, slides, needed=model.needed_context)[of_cell],
        slides=of_cell,
        panels=np.array(panels),
    )
    counts = dataclasses.replace(counts, slide_names=names.tolist(), places=cells.coordinates)
    return ReadCells(cells, counts, token_of_gene)


def readable_cells(corpus: Corpus, split: str, model: Model[Any, Any], max_cells: int, seed: int) -> ReadCells:
    """Return the cells of a split that have a gene of a model.

    Raises
    ------
    InputError
        If there is none, and as `read_cells` and `with_counts`.
    """
    found = with_counts(read_cells(corpus, split, max_cells=max_cells, seed=seed), corpus, model)
    rows = np.flatnonzero(found.counts.n_genes)
    if not rows.size:
        raise InputError(f"No cell of the split {split!r} of {corpus.path} has a gene of the model.")
    return found.take(rows)


def on_their_slides(found: ReadCells, corpus: Corpus, model: Model[Any, Any]) -> ReadCells:
    """Return cells with the slides that they are of, for a model that reads whole slides; as they are for others.

    Those are all cells of the slides in the corpus, whatever their split, as `embed` reads them; what lies in the gap
    between two splits is in no corpus.
    """
    if not model.reads_whole_slides:
        return found
    slides = set(found.cells.slide.tolist())
    everything = cells_of_blocks(corpus, [ref for ref in corpus.block_refs() if ref.slide in slides])
    index = pd.MultiIndex.from_arrays([everything.slide, everything.names])
    place = index.get_indexer(pd.MultiIndex.from_arrays([found.cells.slide, found.cells.names]))
    whole = with_counts(everything, corpus, model).counts
    return dataclasses.replace(found, whole=whole, place=place.astype(np.int64))

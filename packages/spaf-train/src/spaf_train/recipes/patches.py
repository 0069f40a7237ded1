"""Patches of tissue: the cells of a step, so chosen that they hold many pairs at all distances."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_data import Corpus, Distances
from spaf_model import CONTEXT_KINDS, RankedCells, Vocabulary, rank_genes
from spaf_train._checks import require, require_at_least, require_fraction
from spaf_train._csr import csr_rows
from spaf_train.stream.contexts import UNKNOWN


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Which cells a step sees together."""

    sites: int = 32  # places of a step, all of one slide, with two patches each
    cells: int = 8  # cells of a patch: one and those nearest to it
    apart_min: float | None = None  # um, least distance of the middles of the two patches of a site; None: hard_min
    apart_max: float | None = None  # um, largest distance; None: hard_max of the corpus
    token_budget: int = 4096  # largest number of tokens that pass the network at once, padding included
    thinning: float = 0.3  # largest share of transcripts removed at random from a cell, anew each time
    context_dropout: float = 0.0  # chance that species, assay, tissue or condition of a cell is given as unknown

    def __post_init__(self) -> None:
        require_at_least("sites", self.sites, 2)
        require_at_least("cells", self.cells, 2)
        if self.apart_min is not None:
            require_at_least("apart_min", self.apart_min, 0.0)
        if self.apart_min is not None and self.apart_max is not None:
            require(
                self.apart_max >= self.apart_min,
                f"apart_max must be at least apart_min ({self.apart_min} um), not {self.apart_max}.",
            )
        require_at_least("token_budget", self.token_budget, 1)
        require(0.0 <= self.thinning < 1.0, f"thinning must be at least 0 and below 1, not {self.thinning}.")
        require_fraction("context_dropout", self.context_dropout)

    def following(self, distances: Distances) -> PatchConfig:
        """Return the same with both distances given: those of hard negatives where there were none.

        Raises
        ------
        InputError
            If the one that is given contradicts the other.
        """
        return dataclasses.replace(
            self,
            apart_min=distances.hard_min if self.apart_min is None else self.apart_min,
            apart_max=distances.hard_max if self.apart_max is None else self.apart_max,
        )


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of a step; positions in the step are those of the rows."""

    ranked: RankedCells
    index: NDArray[np.int64]  # (n_cells,), which cells of the split they are
    context: NDArray[np.int64]  # (n_cells, 4)
    coordinates: NDArray[np.float32]  # (n_cells, 2), um
    indptr: NDArray[np.int64]  # of `edges`
    edges: NDArray[np.int64]  # (n_edges, 2), token ids of co-localised genes; below 0 without a token
    knows_edges: bool  # whether the slide has co-localised genes at all

    def __len__(self) -> int:
        return int(self.context.shape[0])


class Patches:
    """The cells of a split of a corpus, in memory, and draws of patches from them.

    Parameters
    ----------
    corpus
        Where the cells are. About 2 KB a cell are held.
    vocabulary
        Tokens of its genes and contexts.
    split
        ``"train"`` or ``"validation"``.
    config
        Size and number of patches.
    max_genes
        Genes kept a cell, the highest-ranked; None keeps all.

    Raises
    ------
    spaf_data.InputError
        If the corpus has no such split.
    """

    def __init__(
        self, corpus: Corpus, vocabulary: Vocabulary, *, split: str, config: PatchConfig, max_genes: int | None
    ) -> None:
        self.config = config.following(corpus.distances)
        assert self.config.apart_min is not None, "given by `following`"
        assert self.config.apart_max is not None, "given by `following`"
        self._apart = self.config.apart_min, self.config.apart_max
        self._scale = vocabulary.scale
        self._unknown = np.zeros(len(CONTEXT_KINDS), dtype=np.int64)  # of no use where nothing is dropped
        if config.context_dropout > 0.0:
            self._unknown[:] = [vocabulary.context_id(kind, UNKNOWN) for kind in CONTEXT_KINDS]
        self._max_genes = max_genes
        token_of_gene = vocabulary.match(corpus.genes, corpus.gene_ids).token_ids
        pieces: dict[str, list[tuple[NDArray[np.int64] | NDArray[np.float32], ...]]] = {}
        for ref in corpus.block_refs(split):
            block = corpus.read(ref)
            own, owned_edges = block.indptr[block.n_owned], block.colocalized_indptr[block.n_owned]
            pieces.setdefault(block.slide, []).append(
                (
                    block.coordinates[: block.n_owned],
                    np.diff(block.indptr[: block.n_owned + 1]),
                    token_of_gene[block.genes[:own]],
                    block.counts[:own].astype(np.int64),
                    np.diff(block.colocalized_indptr[: block.n_owned + 1]),
                    token_of_gene[block.colocalized[:owned_edges]],
                )
            )
        self._slides = [
            _Slide.join(
                columns, [vocabulary.context_id(kind, str(corpus.slides[name][kind])) for kind in CONTEXT_KINDS]
            )
            for name, columns in sorted(pieces.items())
        ]
        sizes = np.array([len(slide.coordinates) for slide in self._slides])
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._share = sizes / sizes.sum()

    @property
    def n_cells(self) -> int:
        """Cells in memory."""
        return int(self._first[-1])

    def has_neighbours(self, radius: float) -> bool:
        """Whether two cells of a slide lie within a radius (um) of each other."""
        # A cell finds itself; of one alone the second is infinitely far.
        return any(
            bool((np.asarray(slide.tree.query(slide.coordinates, k=[2])[0]) <= radius).any()) for slide in self._slides
        )

    def counts(self) -> sparse.csr_matrix:
        """Return the counts of all cells, cells x tokens, nothing thinned; genes without a token are left out."""
        lengths = np.concatenate([np.diff(slide.indptr) for slide in self._slides])
        tokens = np.concatenate([slide.tokens for slide in self._slides])
        counts = np.concatenate([slide.counts for slide in self._slides])
        cells = np.repeat(np.arange(self.n_cells), lengths)
        known = tokens >= 0
        shape = (self.n_cells, self._scale.size)
        return sparse.csr_matrix((counts[known], (cells[known], tokens[known])), shape=shape)

    def choose(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Choose the cells of one step: two small patches of tissue at each of some sites.

        Within a patch cells are neighbours, the two patches of a site give hard negatives, and different sites easy
        ones. Many small sites, since cells of one place say much the same. All are of one slide, drawn by its number of
        cells: between slides, cells differ by donor and instrument, and telling those apart is no neighbourhood. A cell
        in two patches comes once.

        Returns
        -------
        tuple
            Which cells of the split they are, and their coordinates in um.
        """
        number = int(generator.choice(len(self._slides), p=self._share))
        slide, config = self._slides[number], self.config
        first = slide.coordinates[generator.integers(0, len(slide.coordinates), config.sites)]
        distance = generator.uniform(*self._apart, config.sites)
        angle = generator.uniform(0.0, 2.0 * np.pi, config.sites)
        second = first + distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        middles = slide.coordinates[slide.tree.query(np.concatenate([first, second]))[1]]
        nearest = slide.tree.query(middles, k=min(config.cells, len(slide.coordinates)))[1]
        cells = np.unique(nearest)
        return self._first[number] + cells, slide.coordinates[cells]

    def draw(self, generator: np.random.Generator) -> Cells:
        """Return the cells of one step, chosen as in `choose`, with some of their transcripts removed."""
        index, _ = self.choose(generator)
        number = int(np.searchsorted(self._first, index[0], side="right")) - 1
        return self._take(self._slides[number], index, index - self._first[number], generator)

    def _take(
        self, slide: _Slide, index: NDArray[np.int64], cells: NDArray[np.int64], generator: np.random.Generator
    ) -> Cells:
        entries, lengths = csr_rows(slide.indptr, cells)
        counts = slide.counts[entries]
        if self.config.thinning > 0.0:
            kept = generator.uniform(1.0 - self.config.thinning, 1.0, cells.size)
            counts = generator.binomial(counts, np.repeat(kept, lengths))
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        ranked = rank_genes(indptr, slide.tokens[entries], counts, self._scale, max_genes=self._max_genes)
        context = np.broadcast_to(slide.context, (cells.size, len(CONTEXT_KINDS)))
        if self.config.context_dropout > 0.0:
            context = np.where(generator.random(context.shape) < self.config.context_dropout, self._unknown, context)
        edge_index, n_edges = csr_rows(slide.edge_indptr, cells)
        return Cells(
            ranked=ranked,
            index=index,
            context=context,
            coordinates=slide.coordinates[cells],
            indptr=np.concatenate([[0], np.cumsum(n_edges)]),
            edges=slide.edges[edge_index],
            knows_edges=len(slide.edges) > 0,
        )


@dataclasses.dataclass(frozen=True)
class _Slide:
    coordinates: NDArray[np.float32]
    indptr: NDArray[np.int64]
    tokens: NDArray[np.int64]
    counts: NDArray[np.int64]
    edge_indptr: NDArray[np.int64]
    edges: NDArray[np.int64]
    context: NDArray[np.int64]
    tree: cKDTree

    @classmethod
    def join(cls, columns: list[tuple[NDArray, ...]], context: list[int]) -> _Slide:
        coordinates, lengths, tokens, counts, n_edges, edges = (
            np.concatenate(column) for column in zip(*columns, strict=True)
        )
        return cls(
            coordinates=coordinates,
            indptr=np.concatenate([[0], np.cumsum(lengths)]),
            tokens=tokens,
            counts=counts,
            edge_indptr=np.concatenate([[0], np.cumsum(n_edges)]),
            edges=edges.reshape(-1, 2),
            context=np.array(context),
            tree=cKDTree(coordinates),
        )

"""Statistics of each gene over any number of slides: cells, slides, mean and median of the non-zero counts.

Counts are integers, so how often each count occurs says everything: medians are exact, and the statistics of two sets
of cells are added without looking at the cells again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from spaf_data.errors import InputError

# Counts below this are tallied in a dense table, the few above it one by one.
_DENSE_COUNTS = 64
_CHUNK_ENTRIES = 1 << 20


@dataclass(frozen=True, eq=False)
class GeneStatistics:
    """How often each non-zero count of each gene occurs, and in how many slides the gene does.

    Examples
    --------
    >>> from scipy import sparse
    >>> slide = GeneStatistics.of_slide(["A", "B"], [sparse.csr_matrix([[1, 0], [4, 2]])])
    >>> slide.merge(slide).to_frame().to_dict("list")["nonzero_median"]
    [2.5, 2.0]
    """

    genes: tuple[str, ...]
    n_slides: npt.NDArray[np.int64]  # (n_genes,)
    # The histogram, sparse: gene, count and number of cells, sorted by gene and count.
    gene: npt.NDArray[np.int32]
    count: npt.NDArray[np.int32]
    cells: npt.NDArray[np.int64]

    @classmethod
    def of_slide(cls, genes: Sequence[str], chunks: Iterable[sparse.csr_matrix]) -> "GeneStatistics":
        """Tally the cells of one slide, in chunks.

        Parameters
        ----------
        genes
            Names of the columns.
        chunks
            Matrices (cells x genes) of counts; each is looked at once.

        Raises
        ------
        InputError
            If two genes have one name, or a count is negative, NaN or no integer.
        """
        genes = tuple(genes)
        repeated = pd.Index(genes)[pd.Index(genes).duplicated()]
        if len(repeated):
            raise InputError(f"two genes are named {repeated[0]!r}.")
        dense = np.zeros(len(genes) * _DENSE_COUNTS, np.int64)
        tables = []
        for chunk in chunks:
            matrix = sparse.csr_matrix(chunk)
            check_counts(matrix.data)
            for start in range(0, matrix.nnz, _CHUNK_ENTRIES):
                gene = matrix.indices[start : start + _CHUNK_ENTRIES].astype(np.int64)
                count = matrix.data[start : start + _CHUNK_ENTRIES].astype(np.int64)
                small = count < _DENSE_COUNTS
                dense += np.bincount(gene[small] * _DENSE_COUNTS + count[small], minlength=len(dense))
                tables.append(_tally(gene[~small], count[~small], np.ones((~small).sum(), np.int64)))
        by_count = dense.reshape(len(genes), _DENSE_COUNTS)
        by_count[:, 0] = 0  # explicit zeros
        gene, count = np.nonzero(by_count)
        tables.append((gene, count, by_count[gene, count]))
        gene, count, cells = _tally(*(np.concatenate(column) for column in zip(*tables, strict=True)))
        n_slides = np.zeros(len(genes), np.int64)
        n_slides[gene] = 1
        return cls(genes, n_slides, gene.astype(np.int32), count.astype(np.int32), cells)

    @classmethod
    def empty(cls) -> "GeneStatistics":
        """Return the statistics of no slide."""
        return cls.of_slide((), ())

    def merge(self, other: "GeneStatistics") -> "GeneStatistics":
        """Return the statistics of two sets of slides together; genes of ``other`` alone come last."""
        genes = tuple(dict.fromkeys(self.genes + other.genes))
        place = pd.Index(genes).get_indexer(pd.Index(other.genes)) if other.genes else np.empty(0, np.int64)
        n_slides = np.zeros(len(genes), np.int64)
        n_slides[: len(self.genes)] = self.n_slides
        n_slides[place] += other.n_slides
        gene, count, cells = _tally(
            np.concatenate([self.gene, place[other.gene]]),
            np.concatenate([self.count, other.count]),
            np.concatenate([self.cells, other.cells]),
        )
        return GeneStatistics(genes, n_slides, gene.astype(np.int32), count.astype(np.int32), cells)

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row a gene.

        Returns
        -------
        Table indexed by ``gene`` with ``n_cells`` (cells in which the gene is seen), ``n_slides`` (slides in which it
        is seen), ``nonzero_mean`` and ``nonzero_median`` (of its counts in those cells; NaN for a gene never seen).
        """
        n_genes = len(self.genes)
        n_cells = np.bincount(self.gene, weights=self.cells, minlength=n_genes).astype(np.int64)
        total = np.bincount(self.gene, weights=self.cells * self.count.astype(np.float64), minlength=n_genes)
        seen = n_cells > 0
        mean = np.full(n_genes, np.nan)
        mean[seen] = total[seen] / n_cells[seen]
        # The k-th smallest count of a gene is where the running number of cells first exceeds k.
        running = np.cumsum(self.cells)
        before = np.cumsum(n_cells) - n_cells
        median = np.full(n_genes, np.nan)
        lower = self.count[np.searchsorted(running, (before + (n_cells - 1) // 2)[seen], side="right")]
        upper = self.count[np.searchsorted(running, (before + n_cells // 2)[seen], side="right")]
        median[seen] = (lower.astype(np.float64) + upper) / 2
        return pd.DataFrame(
            {"n_cells": n_cells, "n_slides": self.n_slides, "nonzero_mean": mean, "nonzero_median": median},
            index=pd.Index(self.genes, name="gene", dtype=object),
        )


def check_counts(values: npt.NDArray[np.number]) -> None:
    """Raise InputError unless all values are integers from 0 to 2^31 - 1 (of any data type)."""
    good = (values >= 0) & (values <= np.iinfo(np.int32).max)
    if values.dtype.kind == "f":
        good &= values == np.floor(values)
    if not good.all():
        raise InputError(f"counts must be integers of at least 0, but one is {values[np.argmin(good)]}.")


def _tally(
    gene: npt.NDArray[np.integer], count: npt.NDArray[np.integer], cells: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sort a histogram by gene and count, and add the cells of equal ones."""
    keys, place = np.unique((gene.astype(np.int64) << 32) | count.astype(np.int64), return_inverse=True)
    added = np.zeros(len(keys), np.int64)
    np.add.at(added, place, cells)
    return keys >> 32, keys & 0xFFFFFFFF, added

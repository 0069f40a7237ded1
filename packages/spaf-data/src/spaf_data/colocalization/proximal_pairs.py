"""Proximal pairs of transcripts by their genes, as one object that slides add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from spaf_data.errors import InputError
from spaf_data.gene_identity import GeneNames, join_genes


@dataclass(frozen=True, kw_only=True)
class GeneProximity:
    """Proximal pairs of transcripts by their genes, over the cells of one or several slides.

    Parameters
    ----------
    genes
        Names, unique.
    gene_ids
        Ensembl ids of `genes` ("" where there is none), when known.
    n_transcripts
        Transcripts of each gene in the cells that were looked at, int64.
    n_cells
        Number of these cells.
    observed
        Pairs of transcripts within the radius, one of each of two genes (on the diagonal: both of one), symmetric
        int64, genes x genes.
    expected
        The same if the genes of each cell were dealt anew among its transcripts, float64.
    radius
        Largest distance of the two transcripts in um, inclusive.
    across_cells
        Whether pairs of transcripts of two different cells count too.
    """

    genes: list[str]
    gene_ids: list[str] | None
    n_transcripts: np.ndarray
    n_cells: int
    observed: np.ndarray
    expected: np.ndarray
    radius: float
    across_cells: bool

    @property
    def n_pairs(self) -> int:
        """Number of proximal pairs of transcripts."""
        return int((self.observed.sum() + np.trace(self.observed)) // 2)

    @classmethod
    def total(cls, parts: Iterable[GeneProximity]) -> GeneProximity:
        """Add up several slides; their genes are joined as those of a corpus are (`join_genes`).

        Raises
        ------
        InputError
            If there is none, or they differ in radius or in what counts, or disagree about the id of a gene.
        """
        found: GeneProximity | None = None
        for part in parts:
            found = part if found is None else found._plus(part)
        if found is None:
            raise InputError("there is no slide to count proximal transcripts in")
        return found

    def _plus(self, other: GeneProximity) -> GeneProximity:
        if (self.radius, self.across_cells) != (other.radius, other.across_cells):
            raise InputError("proximal pairs of transcripts were counted with different radius or across_cells")
        union = join_genes(
            [
                GeneNames(where=f"slide {n}", names=part.genes, gene_ids=part.gene_ids)
                for n, part in enumerate((self, other), 1)
            ]
        )
        genes = union.genes
        n = len(genes)
        counts = np.zeros(n, np.int64)
        observed, expected = np.zeros((n, n), np.int64), np.zeros((n, n))
        for part, rows in zip((self, other), union.columns, strict=True):
            np.add.at(counts, rows, part.n_transcripts)
            _add_pairs(observed, part.observed, rows)
            _add_pairs(expected, part.expected, rows)
        return replace(
            self,
            genes=genes,
            gene_ids=union.gene_ids,
            n_transcripts=counts,
            n_cells=self.n_cells + other.n_cells,
            observed=observed,
            expected=expected,
        )


def _add_pairs(total: np.ndarray, part: np.ndarray, rows: np.ndarray) -> None:
    """Add pairs of genes to those of a union, of which several rows of `part` may be one gene."""
    both, one = np.diag(part), part - np.diag(np.diag(part))
    added = np.zeros_like(total)
    np.add.at(added, np.ix_(rows, rows), one)
    # A pair of two names of one gene stands in both triangles, and once on the diagonal.
    np.fill_diagonal(added, np.diag(added) / 2)
    total += added
    np.add.at(total, (rows, rows), both)

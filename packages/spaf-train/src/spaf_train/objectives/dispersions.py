"""Dispersions of negative binomial counts by the method of moments, from one reading of cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PRIOR = 10.0  # sum of squared means at which a gene is believed half; then its dispersion alone has a deviation of .45
_LEAST, _MOST = 0.01, 100.0  # a count is then almost Poisson, or almost never there
_UNKNOWN = 1.0  # where no gene is known well


class CountMoments:
    """Sums over cells from which dispersions around any rates follow.

    A count y has a mean m and a variance m + phi m^2, so the sum of (y - m)^2 - y over cells is expected to be phi
    times the sum of m^2. (Moments with m in the place of the y that is subtracted are in Breslow 1984, Applied
    Statistics 33:38; this is less variable where counts are rare: of Poisson counts the sum has the variance
    2 sum m^2.)

    Parameters
    ----------
    n_technologies
        Kinds of cells that have a scale of their own.
    n_genes
        Genes, or tokens.
    """

    def __init__(self, n_technologies: int, n_genes: int) -> None:
        shape = (n_technologies, n_genes)
        self._pairs = np.zeros(shape)  # of counts of a gene in a cell, y (y - 1)
        self._weighted = np.zeros(shape)  # counts times the counts of the cell
        self._squares = np.zeros(shape)  # squared counts of the cells in which the gene is measured

    def add(
        self,
        technology: int,
        cells: NDArray[np.integer],
        genes: NDArray[np.integer],
        counts: NDArray[np.integer],
        panel: NDArray[np.bool_],
    ) -> None:
        """Add cells of one technology.

        Parameters
        ----------
        technology
            Its number.
        cells, genes, counts
            Of each count above 0: the cell, from 0, the gene and the count. A gene stands once in a cell.
        panel
            Which genes are measured, (n_genes,).
        """
        n_genes = panel.size
        y = counts.astype(np.float64)
        totals = np.bincount(cells, weights=y)
        self._pairs[technology] += np.bincount(genes, weights=y * (y - 1.0), minlength=n_genes)
        self._weighted[technology] += np.bincount(genes, weights=y * totals[cells], minlength=n_genes)
        self._squares[technology] += panel * np.square(totals).sum()

    def log_inverse_dispersions(self, rates: NDArray[np.floating], scales: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return -log phi of each gene, (n_genes,); 0 for genes that were never seen.

        A gene is drawn to the median of well-known ones, the more the less is known of it, and kept in [.01, 100].

        Parameters
        ----------
        rates
            Shares of genes, (n_genes,).
        scales
            Logarithms, by which means are larger in each technology, (n_technologies,).
        """
        shares = rates * np.exp(scales)[:, np.newaxis]  # a mean is a share of the counts of the cell
        known = (np.square(shares) * self._squares).sum(axis=0)
        excess = (self._pairs - 2.0 * shares * self._weighted).sum(axis=0) + known
        well = known > _PRIOR
        middle = float(np.clip(np.median(excess[well] / known[well]), _LEAST, _MOST)) if well.any() else _UNKNOWN
        dispersions = np.clip((excess + _PRIOR * middle) / (known + _PRIOR), _LEAST, _MOST)
        found: NDArray[np.float64] = np.where(known > 0.0, -np.log(dispersions), 0.0)
        return found

"""What a token says of the count of its gene: a bin among the genes of the cell, or a rate over the measured genes.

**Bins.** The counts of a cell are divided by the population means of their genes and sorted. With n genes, B bins (0,
for a count of zero, included) and S = B - 2, the genes at places a to b of that order, counted from 0 and from the
smallest, all of one value, have bins from ``lower`` to ``upper``:

    upper = floor(S b / (n - 1)) + 1,    lower = min(ceil(S a / (n - 1)) + 1, upper)

These are the bins that S + 1 quantiles of the values leave open to a value, here in whole numbers, so that no rounding
of a quantile decides. The published rule takes any of them at random; here the middle one is taken,
``(lower + upper) // 2``, and on request any by a seed. A cell of one gene has it in the highest bin.

**Rates.** ``log(1 + c / N (sum of m over the measured genes) / m_g)``: how often the gene was met among the counts N of
the cell, in units of how often its population mean m lets it be expected. Genes that are not measured take part in
neither sum, so panels of different size speak of the same thing.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spaf_model.counts import CellCounts
    from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True)
class GeneValues:
    """Genes of cells with their values, in each cell the highest quotient of count and mean first.

    Cell ``i`` has the entries from ``indptr[i]`` to ``indptr[i + 1]``; equal quotients are in the order of tokens.
    """

    indptr: NDArray[np.int64]  # (n_cells + 1,)
    tokens: NDArray[np.int64]  # (n_entries,)
    values: NDArray[np.float32]  # (n_entries,)
    counts: NDArray[np.float32]  # (n_entries,)


def gene_values(cells: CellCounts, scale: NDArray[np.float32], config: ScGPTSpatialConfig) -> GeneValues:
    """Make values of counts, as the configuration says, and cut cells that are too long.

    Values are those of the whole cell; what is cut does not change them. Nothing depends on what other cells there are.

    Parameters
    ----------
    cells
        Their counts.
    scale
        Population mean of the gene of each token, 1 where it is not known.
    config
        `value_style`, `n_bins`, `ties`, `max_length`, `cut` and `token_seed`.
    """
    n_genes = cells.n_genes
    cell = np.repeat(np.arange(cells.n_cells), n_genes)
    quotient = cells.counts.astype(np.float32) / scale[cells.tokens]
    order = np.lexsort((cells.tokens, -quotient, cell))
    tokens, counts, quotient = cells.tokens[order], cells.counts[order].astype(np.float32), quotient[order]
    if "random" in (config.ties, config.cut):
        draws = _draws(cells.indptr, tokens, counts, seed=config.token_seed)
    else:
        draws = np.zeros(0)
    if config.value_style == "bins":
        values = _bins(cell, quotient, cells.indptr, config.n_bins, draws if config.ties == "random" else None)
    else:
        expected = cells.sum_over_measured(scale)
        totals = np.bincount(cell, weights=counts, minlength=cells.n_cells)
        values = np.log1p(quotient * (expected / totals.clip(min=1.0))[cell])
    indptr = cells.indptr
    if config.max_length is not None and int(n_genes.max(initial=0)) > config.max_length - 1:
        place = _places(indptr, cell)
        if config.cut == "random":
            drawn = np.lexsort((draws, cell))
            place[drawn] = _places(indptr, cell)
        kept = place < config.max_length - 1
        tokens, values, counts = tokens[kept], values[kept], counts[kept]
        indptr = np.concatenate([[0], np.cumsum(np.minimum(n_genes, config.max_length - 1))])
    return GeneValues(indptr, tokens, values.astype(np.float32), counts)


def bin_bounds(
    first: NDArray[np.int64], last: NDArray[np.int64], n_genes: NDArray[np.int64], n_bins: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lowest and highest bin of values that stand at some places among those of their cell.

    Parameters
    ----------
    first, last
        Places of the first and the last gene of the value, from 0 and from the smallest.
    n_genes
        Genes of the cell.
    n_bins
        Bins, that of a count of zero included.
    """
    steps, intervals = n_bins - 2, np.maximum(n_genes - 1, 1)
    upper = steps * last // intervals + 1
    lower = np.minimum(-(-steps * first // intervals) + 1, upper)
    alone = n_genes == 1
    return np.where(alone, n_bins - 1, lower), np.where(alone, n_bins - 1, upper)


def _bins(
    cell: NDArray[np.int64],
    quotient: NDArray[np.float32],
    indptr: NDArray[np.int64],
    n_bins: int,
    draws: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    """Return the bins of entries that are sorted by cell and descending quotient."""
    if not cell.size:
        return np.zeros(0, dtype=np.int64)
    begins = np.concatenate([[True], (cell[1:] != cell[:-1]) | (quotient[1:] != quotient[:-1])])
    group = np.cumsum(begins) - 1
    firsts = np.flatnonzero(begins)
    lasts = np.concatenate([firsts[1:], [cell.size]]) - 1
    end = indptr[1:][cell] - 1  # of the cell, where its smallest value is
    lower, upper = bin_bounds(end - lasts[group], end - firsts[group], np.diff(indptr)[cell], n_bins)
    if draws is None:
        return (lower + upper) // 2
    return lower + np.floor(draws * (upper - lower + 1)).astype(np.int64)


def _places(indptr: NDArray[np.int64], cell: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each entry within its cell."""
    places: NDArray[np.int64] = np.arange(cell.size) - indptr[:-1][cell]
    return places


def _draws(
    indptr: NDArray[np.int64], tokens: NDArray[np.int64], counts: NDArray[np.float32], *, seed: int
) -> NDArray[np.float64]:
    """Return a number from 0 to below 1 for each entry, by seed, gene and the content of the cell alone.

    So a cell is drawn alike wherever it stands and whatever else is read with it.
    """
    with np.errstate(over="ignore"):
        entries = _mixed(tokens.astype(np.uint64) * _GOLDEN + counts.astype(np.uint64))
        sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(entries, dtype=np.uint64)])
        of_cell = np.repeat(_mixed(sums[indptr[1:]] - sums[indptr[:-1]] + np.uint64(seed)), np.diff(indptr))
        return (_mixed(of_cell + entries) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers whose bits are mixed (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed

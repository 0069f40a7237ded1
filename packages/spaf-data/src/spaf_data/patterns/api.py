"""Where in the cell each gene lies: six statistics, against labels of genes permuted within each cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse, stats

from spaf_data import defaults
from spaf_data.errors import InputError
from spaf_data.patterns._kernels import NUCLEAR, PERINUCLEAR, PERIPHERAL, fill_nuclei, score_cells
from spaf_data.patterns.outlines import Outlines, Rings
from spaf_data.transcripts import cell_ranges

if TYPE_CHECKING:
    from spaf_data.transcripts import Transcripts

# The statistic of each pattern, in the order of the kernel, and the side of it that the pattern is.
_STATISTIC = {
    "nuclear": (0, 1.0), "cytoplasmic": (0, -1.0), "perinuclear": (1, 1.0), "peripheral": (2, 1.0),
    "central": (3, -1.0), "edge": (3, 1.0), "polarised": (4, 1.0), "punctate": (5, 1.0),
}  # fmt: skip
PATTERNS = tuple(_STATISTIC)
_N_STATISTICS = 6
_NEEDS = {
    NUCLEAR: "flags of nuclear transcripts or outlines of nuclei",
    PERINUCLEAR: "outlines of nuclei",
    PERIPHERAL: "outlines of cells",
}
_LEAST_GENES = 20  # tested, for the typical gene to be known
_LARGEST_RADIUS = 100.0  # um of a cell, by the root of the mean square of its transcripts' distances from its centre


@dataclass(frozen=True)
class SubcellularPatterns:
    """What `subcellular_patterns` finds.

    Attributes
    ----------
    table
        A row for each gene and pattern tested; see `subcellular_patterns`.
    missing
        Patterns that were not looked for, and what the run lacks for them.
    scores
        By pattern, cells x genes in the order of the transcripts: the standard score of each gene of each cell that has
        one (CSR, float32; nothing is stored where it has none). Empty unless they were asked for.
    typical
        By pattern, the effect of the typical gene, from which the effects in `table` are counted; 0 where fewer than 20
        genes are tested.
    """

    table: pd.DataFrame
    missing: dict[str, str]
    scores: dict[str, sparse.csr_matrix]
    typical: dict[str, float]


def check_patterns(names: Sequence[str]) -> None:
    """Raise `InputError` for a name that is none of a pattern."""
    for name in names:
        if name not in PATTERNS:
            raise InputError(f"there is no pattern {name!r}; the choices are {', '.join(PATTERNS)}")


def choose_patterns(
    transcripts: Transcripts, outlines: Outlines | None = None, patterns: Sequence[str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return the patterns that can be looked for, and what the others need.

    Raises
    ------
    InputError
        If one is named that is unknown or cannot be looked for.
    """
    outlines = outlines or Outlines()
    there = {
        NUCLEAR: transcripts.nucleus_known or outlines.nuclei is not None,
        PERINUCLEAR: outlines.nuclei is not None,
        PERIPHERAL: outlines.cells is not None,
    }
    missing = {name: _NEEDS[k] for name, (k, _) in _STATISTIC.items() if not there.get(k, True)}
    check_patterns(patterns or ())
    for name in patterns or ():
        if name in missing:
            found = [known for known in PATTERNS if known not in missing]
            where = transcripts.parameters.get("file", "the run")
            raise InputError(
                f"{where} has no {missing[name]}, which the pattern {name!r} needs; without them there are "
                f"{', '.join(found)}"
            )
    wanted = PATTERNS if patterns is None else tuple(patterns)
    return [name for name in PATTERNS if name in wanted and name not in missing], missing


def subcellular_patterns(
    transcripts: Transcripts,
    *,
    outlines: Outlines | None = None,
    patterns: Sequence[str] | None = None,
    radius: float = defaults.PUNCTA_RADIUS,
    min_cells: float = defaults.PATTERN_MIN_CELLS,
    cell_scores: bool = False,
    progress: Callable[[float], None] | None = None,
) -> SubcellularPatterns:
    """Find in which part of the cell each gene lies more than the other transcripts of the same cells.

    =========== ==================================================== ==========================
    pattern     a gene's transcripts                                 needs
    =========== ==================================================== ==========================
    nuclear     are more often in the nucleus                        nuclei (flags or outlines)
    cytoplasmic are more often outside it                            nuclei (flags or outlines)
    perinuclear outside the nucleus lie nearer to its outline        outlines of nuclei
    peripheral  outside the nucleus lie nearer to the cell's outline outlines of cells
    central     lie nearer to the centre of the cell's transcripts   nothing
    edge        lie further from it                                  nothing
    polarised   lie to the same side of it                           nothing
    punctate    lie within `radius` of each other                    nothing
    =========== ==================================================== ==========================

    Parameters
    ----------
    transcripts
        Of one slide.
    outlines
        As far as there are some; see `read_outlines`.
    patterns
        Those to look for; None: all that the run allows.
    radius
        um within which two transcripts are in one punctum.
    min_cells
        A gene is tested for a pattern where at least so many cells say something of it: the square of the sum of their
        variances over the sum of squares.
    cell_scores
        Keep the score of each gene in each cell.
    progress
        Called with the fraction of the cells done.

    Returns
    -------
    SubcellularPatterns
        ``table`` has ``gene``, ``pattern``, ``n_cells`` (with a transcript of it that counts), ``n_transcripts`` (in
        all cells), ``effect``, ``z``, ``p`` (one-sided), ``fdr`` (Benjamini-Hochberg over all rows), most certain
        first. ``effect`` is a difference in shares of transcripts (nuclear), in mean rank from 0 to 1 (perinuclear,
        peripheral, central, edge), the mean product of the offsets of two transcripts, 1 at the same side and usual
        distance (polarised), or the excess of pairs over expectation as a share of it (punctate).

    Raises
    ------
    InputError
        If a pattern is unknown or cannot be looked for, a number is out of range, cells are too large to be in um, or
        no gene has enough transcripts.

    Notes
    -----
    The null hypothesis holds the places of a cell's transcripts and permutes which are of which gene; for all but
    nuclear and cytoplasmic within the nucleus and within the rest, where nuclei are known, so that a nuclear gene
    does not come out central or punctate for that. Mean and variance of each statistic are exact
    (`spaf_data.patterns._moments`), and so is the skewness but for polarised; p is that of a Pearson type III
    distribution with these three moments. Cells are combined by the sum of what was observed less what was expected,
    over the root of the sum of variances, or of what the cells differ by around their common effect, where that is
    more: transcripts in one punctum are not independent, so that a punctate gene lies at random here and there more
    than permutations allow for.

    Genes share their cells: where some lie in the nucleus, all others lie outside it more than the average transcript
    does. With at least 20 genes tested, effects are therefore counted from that of the typical gene, the weighted
    median over genes. What is left is said of a gene among the genes of its panel.

    Nothing is corrected for segmentation: transcripts of a neighbour that were given to a cell lie at one side of its
    edge. Places are taken in x and y. Time grows with the number of transcripts times their neighbours within `radius`.

    The polarisation index of a gene (the offset of its centre over the radius of gyration of the cell) is by Park et
    al. (Cell Reports 1, 2012); here pairs of transcripts take its place, whose expectation is known.

    Examples
    --------
    >>> import numpy as np
    >>> from spaf_data import Transcripts
    >>> rng = np.random.default_rng(0)
    >>> cell, gene = np.repeat(np.arange(40), 60), np.tile(np.arange(60) % 4, 40)
    >>> distance, angle = np.sqrt(rng.random(2400)) * np.where(gene == 3, 2.0, 6.0), rng.random(2400) * 6.283
    >>> transcripts = Transcripts.from_arrays(
    ...     x=distance * np.cos(angle), y=distance * np.sin(angle), gene=gene, cell=cell, genes=list("abcd"),
    ...     cells=[str(i) for i in range(40)],
    ... )
    >>> found = subcellular_patterns(transcripts, patterns=["central", "edge"])
    >>> found.table.loc[0, ["gene", "pattern"]].tolist()
    ['d', 'central']
    """
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"radius must be above 0 um, not {radius:g}")
    if not min_cells >= 1:
        raise InputError(f"min_cells must be at least 1, not {min_cells:g}")
    outlines = outlines or Outlines()
    chosen, missing = choose_patterns(transcripts, outlines, patterns)
    wanted = np.zeros(_N_STATISTICS, bool)
    wanted[[_STATISTIC[name][0] for name in chosen]] = True
    totals = np.zeros((_N_STATISTICS, 8, transcripts.n_genes))
    seen = np.zeros((_N_STATISTICS, transcripts.n_genes), np.int64)
    parts: dict[str, list[sparse.csr_matrix]] = {name: [] for name in chosen if cell_scores}
    for cells in cell_ranges(transcripts.offsets):
        gene, indptr, moments = _score(transcripts, outlines, cells, wanted, radius)
        apart, variance, third, weight = np.moveaxis(moments, 2, 0)
        columns = (apart, variance, third, weight, variance**2, apart**2, apart * weight, weight**2)
        for k in np.flatnonzero(wanted):
            for column, values in enumerate(columns):
                totals[k, column] += np.bincount(gene, weights=values[k], minlength=transcripts.n_genes)
            seen[k] += np.bincount(gene[moments[k, :, 1] > 0], minlength=transcripts.n_genes)
        for name, matrices in parts.items():
            matrices.append(_of_cells(name, gene, indptr, moments, transcripts.n_genes))
        if progress is not None:
            progress(cells.stop / transcripts.n_cells)
    tested, typical = _tested(chosen, totals, seen, min_cells)
    table = _table(transcripts, tested)
    if table.empty:
        raise InputError(
            f"{transcripts.parameters.get('file', 'the run')} has no gene that at least {min_cells:g} of its "
            f"{transcripts.n_cells} cells say something of; take fewer (min_cells, --min-cells) or more cells"
        )
    scores = {name: sparse.vstack(matrices, format="csr") for name, matrices in parts.items()}
    return SubcellularPatterns(table, missing, scores, typical)


def _score(
    transcripts: Transcripts, outlines: Outlines, cells: slice, wanted: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gene of each run, the runs of each cell, and their moments, for a range of cells."""
    first = transcripts.offsets[cells.start]
    offsets = np.asarray(transcripts.offsets[cells.start : cells.stop + 1] - first)
    rows = slice(first, first + offsets[-1])
    x, y, gene = (np.array(column[rows]) for column in (transcripts.x, transcripts.y, transcripts.gene))
    _check_um(x, y, offsets, transcripts)
    of_cells, of_nuclei = (_part(rings, cells) for rings in (outlines.cells, outlines.nuclei))
    inside = np.array(transcripts.in_nucleus[rows])
    if not transcripts.nucleus_known and outlines.nuclei is not None:
        fill_nuclei(x, y, offsets, *of_nuclei, inside)
    starts = np.ones(len(gene), bool)
    starts[1:] = gene[1:] != gene[:-1]
    starts[offsets[:-1]] = True
    first_run = np.concatenate([[0], np.cumsum(starts)])[offsets]
    moments = np.zeros((_N_STATISTICS, int(first_run[-1]), 4))
    score_cells(x, y, gene, inside, offsets, wanted, radius, *of_cells, *of_nuclei, first_run, moments)
    return gene[starts], first_run, moments


def _part(rings: Rings | None, cells: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets and sides of the outlines of a range of cells."""
    if rings is None:
        return np.zeros(cells.stop - cells.start + 1, np.int64), np.empty((0, 4))
    offsets = rings.offsets[cells.start : cells.stop + 1]
    return offsets - offsets[0], rings.segments[offsets[0] : offsets[-1]]


def _check_um(x: np.ndarray, y: np.ndarray, offsets: np.ndarray, transcripts: Transcripts) -> None:
    """Refuse cells that are so large that their places must be pixels."""
    size = np.diff(offsets)
    spread = []
    for values in (x.astype(np.float64), y.astype(np.float64)):
        apart = values - np.repeat(np.add.reduceat(values, offsets[:-1]) / size, size)
        spread.append(np.sqrt(np.add.reduceat(apart * apart, offsets[:-1]) / size))
    usual = float(np.median(np.hypot(*spread)))
    where = transcripts.parameters.get("file", "the run")
    if usual > _LARGEST_RADIUS:
        raise InputError(
            f"the transcripts of a usual cell of {where} lie {usual:.0f} um from its centre: are these "
            "pixels? Then say how large one is (pixel_size, --pixel-size)"
        )


def _of_cells(name: str, gene: np.ndarray, indptr: np.ndarray, moments: np.ndarray, n_genes: int) -> sparse.csr_matrix:
    """Return the standard scores of the genes of some cells."""
    statistic, sign = _STATISTIC[name]
    apart, variance = moments[statistic, :, 0], moments[statistic, :, 1]
    known = variance > 0
    score = sign * apart[known] / np.sqrt(variance[known])
    kept = np.concatenate([[0], np.cumsum(known)])[indptr]
    return sparse.csr_matrix((score.astype(np.float32), gene[known], kept), shape=(len(indptr) - 1, n_genes))


@dataclass(frozen=True)
class _Tested:
    """The genes tested for one pattern."""

    name: str
    genes: np.ndarray
    n_cells: np.ndarray
    effect: np.ndarray
    z: np.ndarray
    p: np.ndarray


def _tested(
    chosen: list[str], totals: np.ndarray, seen: np.ndarray, min_cells: float
) -> tuple[list[_Tested], dict[str, float]]:
    """Combine cells, and count effects from the typical gene."""
    found, typical = [], {}
    for name in chosen:
        statistic, sign = _STATISTIC[name]
        apart, variance, third, weight, squares, *of_cells = totals[statistic]
        genes = np.flatnonzero((variance > 0) & (weight > 0) & (variance**2 >= min_cells * squares))
        apart, variance, third, weight = (values[genes] for values in (apart, variance, third, weight))
        variance = np.maximum(variance, _between_cells(apart / weight, *(values[genes] for values in of_cells)))
        usual = 0.0
        if len(genes) >= _LEAST_GENES:
            usual = _weighted_median(apart / weight, weight / np.sqrt(variance))
        apart = apart - usual * weight
        z = sign * apart / np.sqrt(variance)
        p = stats.pearson3.sf(z, sign * third / variance**1.5)
        effect = sign * apart / weight
        found.append(_Tested(name, genes, seen[statistic, genes], effect, z, np.clip(p, np.finfo(float).tiny, 1.0)))
        typical[name] = sign * usual
    return found, typical


def _between_cells(effect: np.ndarray, squared: np.ndarray, product: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the variance of the sum over cells that the cells themselves show, around the effect of all of them."""
    shown: np.ndarray = squared - 2 * effect * product + effect**2 * weights
    return shown


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _table(transcripts: Transcripts, tested: list[_Tested]) -> pd.DataFrame:
    """Return all tests in one table, most certain first."""
    genes, n_transcripts = np.array(transcripts.genes), np.bincount(transcripts.gene, minlength=transcripts.n_genes)
    frames = [
        pd.DataFrame(
            {
                "gene": genes[each.genes], "pattern": each.name, "n_cells": each.n_cells,
                "n_transcripts": n_transcripts[each.genes], "effect": each.effect, "z": each.z, "p": each.p,
            }
        )
        for each in tested
    ]  # fmt: skip
    table = pd.concat(frames, ignore_index=True)
    if len(table):
        table["fdr"] = stats.false_discovery_control(table["p"])
    order = np.lexsort((table["pattern"], table["gene"], -table["z"], table["p"]))
    return table.iloc[order].reset_index(drop=True)

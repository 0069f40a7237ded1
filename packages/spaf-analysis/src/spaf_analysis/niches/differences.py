"""How niches differ between two conditions: in how much there is of each, in cell types and in genes, by donor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.defaults import N_PERMUTATIONS
from spaf_analysis.donors import DonorTest, compare_conditions

MIN_CELLS = 10  # of a donor in a niche, for what is inside it to be a value
MIN_COUNTS = 10.0  # of a gene in a niche, on average over the donors that have it
_PRIOR = 0.5  # count added to each gene of a pseudobulk

Groups = tuple[NDArray[np.int64], Sequence[str]]  # code of each cell (-1 without), and names


def abundance(niche: Groups, donor: Groups) -> tuple[NDArray[np.float64], list[tuple[str, str]]]:
    """Share of each donor's cells that is in each niche: donors x niches, and (niche, "") of each column."""
    table = _counted(donor, niche)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = table / table.sum(axis=1, keepdims=True)
    return share, [(name, "") for name in niche[1]]


def composition(
    niche: Groups, donor: Groups, cell_type: Groups, *, min_cells: int = MIN_CELLS
) -> tuple[NDArray[np.float64], list[tuple[str, str]]]:
    """Share of each type among the cells of a donor in a niche: donors x (niches x types); NaN with too few cells."""
    known = (niche[0] >= 0) & (cell_type[0] >= 0)
    n_types = len(cell_type[1])
    both = np.where(known, niche[0] * n_types + cell_type[0], -1)
    table = _counted(donor, (both, [""] * (len(niche[1]) * n_types))).reshape(len(donor[1]), -1, n_types)
    total = table.sum(axis=2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(total >= min_cells, table / total, np.nan)
    names = [(one, kind) for one in niche[1] for kind in cell_type[1]]
    return share.reshape(len(donor[1]), -1), names


def pseudobulk(
    counts: sparse.csr_matrix,
    niche: Groups,
    donor: Groups,
    genes: Sequence[str],
    *,
    min_cells: int = MIN_CELLS,
    min_counts: float = MIN_COUNTS,
) -> tuple[NDArray[np.float64], list[tuple[str, str]]]:
    """Log2 counts per million of the summed cells of a donor in a niche: donors x (niche, gene).

    NaN with too few cells; genes with too few counts in a niche are left out there.
    """
    n_niches, n_donors = len(niche[1]), len(donor[1])
    known = np.flatnonzero((niche[0] >= 0) & (donor[0] >= 0))
    group = donor[0][known] * n_niches + niche[0][known]
    sums = sparse.csr_matrix(
        (np.ones(len(known)), (group, np.arange(len(known)))), shape=(n_donors * n_niches, len(known))
    )
    total = np.asarray((sums @ counts[known]).toarray()).reshape(n_donors, n_niches, -1)
    size = np.bincount(group, minlength=n_donors * n_niches).reshape(n_donors, n_niches)
    depth = total.sum(axis=2, keepdims=True)
    values = np.log2((total + _PRIOR) / (depth + 1.0) * 1e6)
    values[size < min_cells] = np.nan
    columns, names = [], []
    for code, name in enumerate(niche[1]):
        enough = size[:, code] >= min_cells
        if not enough.any():
            continue
        kept = np.flatnonzero(total[enough, code].mean(axis=0) >= min_counts)
        columns.append(values[:, code, kept])
        names += [(name, genes[gene]) for gene in kept.tolist()]
    return (np.concatenate(columns, axis=1) if columns else np.zeros((n_donors, 0))), names


def differences(
    kind: str,
    values: NDArray[np.float64],
    names: Sequence[tuple[str, str]],
    is_first: NDArray[np.bool_],
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> tuple[pd.DataFrame, DonorTest]:
    """Compare two conditions in one kind of values, donors as units.

    Parameters
    ----------
    kind
        "abundance" or "composition", whose shares are compared as arcsines of their square roots, or "gene".
    values
        Donors x features.
    names
        Niche and feature of each column.
    is_first
        Which donors have the first condition.
    n_permutations, seed
        As for `compare_conditions`.

    Returns
    -------
    tuple
        Rows with `kind`, `niche`, `feature`, `first` and `second` (means over donors), `difference`, `statistic`, `p`,
        `p_adjusted` (max-T over all rows of the kind), `fdr` and `n_donors`, the most certain first; and the test.
    """
    compared = values if kind == "gene" else np.arcsin(np.sqrt(values))
    test = compare_conditions(compared, is_first, n_permutations=n_permutations, seed=seed)
    means = [_means(values[part]) for part in (is_first, ~is_first)]
    table = pd.DataFrame(
        {
            "kind": kind, "niche": [niche for niche, _ in names], "feature": [feature for _, feature in names],
            "first": means[0], "second": means[1], "difference": means[0] - means[1], "statistic": test.statistic,
            "p": test.p, "p_adjusted": test.p_adjusted, "fdr": test.fdr, "n_donors": test.n_donors,
        }
    )  # fmt: skip
    order = np.lexsort((-np.nan_to_num(np.abs(test.statistic)), np.nan_to_num(test.p, nan=2.0)))
    return table.iloc[order].reset_index(drop=True), test


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    count = np.isfinite(values).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _counted(rows: Groups, columns: Groups) -> NDArray[np.float64]:
    known = (rows[0] >= 0) & (columns[0] >= 0)
    shape = (len(rows[1]), len(columns[1]))
    flat = rows[0][known] * shape[1] + columns[0][known]
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

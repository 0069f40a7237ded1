"""How the niches of an AnnData differ between two conditions, with donors as units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spaf_analysis.conditions import compared_donors
from spaf_analysis.defaults import N_PERMUTATIONS
from spaf_analysis.genes import checked_counts
from spaf_analysis.keys import NICHE_DIFFERENCES, NICHES
from spaf_analysis.niches import differences
from spaf_analysis.tables import labels_of, stored_result, table_of
from spaf_model import check_key

if TYPE_CHECKING:
    import anndata as ad

    from spaf_model import Cells


def niche_differences(
    adata: Cells,
    *,
    condition: str,
    donor: str,
    contrast: tuple[str, str] | None = None,
    key: str = NICHES,
    cell_type: str | None = None,
    min_cells: int = differences.MIN_CELLS,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = NICHE_DIFFERENCES,
) -> None:
    """Compare niches between two conditions, with donors as units, into `uns[key_added]`.

    Compared are how much of each donor's cells is in each niche, the shares of cell types within niches, and genes by
    the summed counts of a donor in a niche. p-values come from permuting donors (`spaf_analysis.donors`), adjusted by
    max-T within each of the three kinds.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X` and niches, or a SpatialData. Written to `uns[key_added]`: `table` (see
        `spaf_analysis.niches.differences.differences`), `first`, `second`, `n_first`, `n_second` (donors),
        `smallest_p` that so many donors allow, `n_arrangements`, `is_exact`, `parameters`.
    condition, donor
        Columns of `obs`; a donor has one condition.
    contrast
        The two conditions, the first less the second; may be None where there are only two (in alphabetical order).
    key
        Column of `obs` with the niches.
    cell_type
        Column of `obs` with cell types; without one their shares are not compared.
    min_cells
        Cells that a donor must have in a niche for what is inside it to count.
    n_permutations, seed
        See `spaf_analysis.donors.compare_conditions`.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.

    Raises
    ------
    InputError
        If a column is missing, it is not said which conditions are meant, a condition has fewer than two donors, or a
        donor has two conditions.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    counts = checked_counts(table, None, "the table")
    of_niche = labels_of(table, key, "key", least=1)
    niche = (of_niche[0], of_niche[1])
    of_type = None if cell_type is None else labels_of(table, cell_type, "cell_type")
    of_donor, donors, is_first, names = compared_donors(table, condition, donor, contrast)
    who = (of_donor, donors)
    order = sorted(range(len(niche[1])), key=lambda code: (len(niche[1][code]), niche[1][code]))
    rank = np.argsort(order)
    niche = (np.where(niche[0] >= 0, rank[niche[0]], -1), [niche[1][code] for code in order])
    kinds = {"abundance": differences.abundance(niche, who)}
    if of_type is not None:
        kinds["composition"] = differences.composition(niche, who, of_type, min_cells=min_cells)
    genes = table.var_names.astype(str).tolist()
    kinds["gene"] = differences.pseudobulk(counts, niche, who, genes, min_cells=min_cells)
    tables, tests = zip(
        *(
            differences.differences(kind, *values, is_first, n_permutations=n_permutations, seed=seed)
            for kind, values in kinds.items()
        ),
        strict=True,
    )
    table.uns[key_added] = {
        "table": pd.concat(tables, ignore_index=True),
        "first": names[0], "second": names[1], "n_first": int(is_first.sum()), "n_second": int((~is_first).sum()),
        "smallest_p": tests[0].smallest_p, "n_arrangements": tests[0].n_arrangements, "is_exact": tests[0].is_exact,
        "parameters": {
            "key": key, "condition": condition, "donor": donor, "cell_type": cell_type or "", "min_cells": min_cells,
            "n_permutations": n_permutations, "seed": seed,
        },
    }  # fmt: skip


def stored_differences(table: ad.AnnData, key: str = NICHE_DIFFERENCES) -> dict[str, Any]:
    """Return what `niche_differences` wrote.

    Raises
    ------
    InputError
        If it is not there.
    """
    stored = stored_result(table, key, "differences of niches", "tl.niche_differences writes them")
    return dict(stored)

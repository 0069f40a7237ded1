"""Which cell types lie around which, of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.cell_pairs.tool import distances_of
from spaf_analysis.conditions import compared_donors
from spaf_analysis.defaults import N_PERMUTATIONS
from spaf_analysis.donors import DonorTest, compare_conditions, compare_with_zero
from spaf_analysis.errors import InputError
from spaf_analysis.keys import TYPE_PAIRS
from spaf_analysis.tables import check_radius, labels_of, places_of, slide_names, table_of
from spaf_analysis.type_pairs.compute import MIN_EXPECTED, count_types_around, of_donors
from spaf_model import check_key

if TYPE_CHECKING:
    import anndata as ad

    from spaf_model import Cells


def type_pairs(
    adata: Cells,
    *,
    cell_type: str,
    donor: str | None = None,
    condition: str | None = None,
    contrast: tuple[str, str] | None = None,
    radius: float | None = None,
    n_neighbors: int | None = None,
    min_expected: float = MIN_EXPECTED,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = TYPE_PAIRS,
) -> None:
    """Enrichment of cell types around each other, with donors as units, into `uns[key_added]`.

    In each image the neighbours of the cells of a type are counted by type, and held against what they would be on
    average if all other cells had each other's labels: exact, without permutations of cells. What was observed over
    what was expected is one value a donor. Without a condition it is compared with 1 by flipping the signs of donors,
    with one between the conditions by permuting donors; p-values are adjusted for all pairs of types by max-T. See
    `spaf_analysis.donors` for what few donors allow.

    Parameters
    ----------
    adata
        Cells with `obsm["spatial"]` in um, or a SpatialData. Written to `uns[key_added]`: `table` (`of`, `around`:
        cells of the second type around those of the first; `observed`, `expected`, `ratio` over all donors, or the mean
        ratios `first` and `second` of both conditions; `difference`, `statistic`, `p`, `p_adjusted`, `fdr`,
        `n_donors`), `donors` (`donor`, `of`, `around`, `observed`, `expected`, `ratio`), `test`, `reason` (why there
        are no p-values), `smallest_p`, `parameters`.
    cell_type
        Column of `obs`; cells without a type are left out.
    donor
        Column of `obs`; None: each slide is a donor of its own.
    condition, contrast
        Column of `obs`, and the two conditions to compare where it has more.
    radius
        Of neighbours, in um; None: that of the cell graph, or 30 um (of spots further apart, one spacing).
    n_neighbors
        Nearest cells that are neighbours, in place of a radius.
    min_expected
        Neighbours that must be expected of a donor for a pair of types to have a value there.
    n_permutations, seed
        See `spaf_analysis.donors`.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.

    Raises
    ------
    InputError
        If a column is missing or holds no labels, both a radius and a number of neighbours are given, or most cells
        have no neighbour.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    code, names = labels_of(table, cell_type, "cell_type")
    if radius is not None and n_neighbors is not None:
        raise InputError("give a radius or n_neighbors, not both.")
    if n_neighbors is not None and n_neighbors < 1:
        raise InputError(f"n_neighbors must be at least 1, not {n_neighbors}.")
    if n_neighbors is None and radius is None:
        radius = distances_of(table).positive
    if condition is not None and donor is None:
        raise InputError("conditions are compared between donors: name the column of donors too (donor).")
    of_donor, donors, is_first, conditions = _units(table, donor, condition, contrast)
    used = np.flatnonzero((code >= 0) & (of_donor >= 0))
    coordinates, slide = places_of(table)[used], slide_names(table)[used]
    # Cells of two donors are never neighbours, whatever the table says of slides.
    both = pd.MultiIndex.from_arrays([slide, of_donor[used]])
    image, of_image = both.factorize(sort=True)
    if radius is not None:
        check_radius(coordinates, image, radius, "radius")
    counts = count_types_around(coordinates, code[used], image, len(names), radius=radius, n_neighbors=n_neighbors)
    donor_of_image = np.array([which for _, which in of_image], dtype=np.int64)
    excess, observed, expected = of_donors(counts, donor_of_image, len(donors), min_expected=min_expected)
    values = excess.reshape(len(donors), -1)
    rows: dict[str, Any] = {"of": np.repeat(names, len(names)), "around": np.tile(names, len(names))}
    test: DonorTest | None = None
    if is_first is not None:
        test = compare_conditions(values, is_first, n_permutations=n_permutations, seed=seed)
        rows |= {"first": _mean(values[is_first]) + 1, "second": _mean(values[~is_first]) + 1}
    else:
        total, chance = observed.sum(axis=0).ravel(), expected.sum(axis=0).ravel()
        ratio = np.divide(total, chance, out=np.full(len(total), np.nan), where=chance > 0)
        rows |= {"observed": total, "expected": chance, "ratio": ratio}
        if len(donors) >= 2:
            test = compare_with_zero(values, n_permutations=n_permutations, seed=seed)
    reason = "" if test is not None else "there is one donor, and nothing says how another would differ"
    nothing = np.full(values.shape[1], np.nan)
    for column in ("difference", "statistic", "p", "p_adjusted", "fdr"):
        rows[column] = nothing if test is None else getattr(test, column)
    rows["n_donors"] = np.isfinite(values).sum(axis=0)
    of_donors_table = pd.DataFrame(
        {
            "donor": np.repeat(donors, values.shape[1]), "of": np.tile(rows["of"], len(donors)),
            "around": np.tile(rows["around"], len(donors)), "observed": observed.ravel(),
            "expected": expected.ravel(), "ratio": values.ravel() + 1,
        }
    )  # fmt: skip
    table.uns[key_added] = {
        "table": _most_certain_first(pd.DataFrame(rows)),
        "donors": of_donors_table,
        "types": np.array(names, dtype=object),
        "test": "none" if test is None else "permutation of donors" if is_first is not None else "sign flips of donors",
        "reason": reason,
        "conditions": np.array(conditions, dtype=object),
        "n_donors": len(donors),
        "n_images": len(of_image),
        "n_arrangements": 0 if test is None else test.n_arrangements,
        "is_exact": test is not None and test.is_exact,
        "smallest_p": float("nan") if test is None else test.smallest_p,
        "parameters": {
            "cell_type": cell_type, "donor": donor or "", "condition": condition or "",
            "radius": float("nan") if radius is None else radius, "n_neighbors": n_neighbors or 0,
            "min_expected": min_expected, "n_permutations": n_permutations, "seed": seed,
        },
    }  # fmt: skip


def _units(
    table: ad.AnnData, donor: str | None, condition: str | None, contrast: tuple[str, str] | None
) -> tuple[NDArray[np.int64], list[str], NDArray[np.bool_] | None, tuple[str, ...]]:
    """Return the donor of each cell, donors, and with a condition which have the first, and what both are called."""
    if condition is not None and donor is not None:
        return compared_donors(table, condition, donor, contrast)
    if donor is not None:
        return *labels_of(table, donor, "donor", least=1), None, ()
    found, code = np.unique(slide_names(table), return_inverse=True)
    return code.ravel().astype(np.int64), found.tolist(), None, ()


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    count = np.isfinite(values).sum(axis=0)
    mean = np.full(values.shape[1], np.nan)
    np.divide(np.nansum(values, axis=0), count, out=mean, where=count > 0)
    return mean


def _most_certain_first(table: pd.DataFrame) -> pd.DataFrame:
    size = np.nan_to_num(np.abs(table["statistic"].to_numpy()))
    if not size.any() and "expected" in table:
        # As far from chance as counts of that size scatter: a ratio of 0 of two expected says little.
        chance = table["expected"].to_numpy()
        away = np.abs(table["observed"].to_numpy() - chance)
        size = np.divide(away, np.sqrt(chance), out=np.zeros(len(away)), where=chance > 0)
    order = np.lexsort((-size, np.nan_to_num(table["p"].to_numpy(), nan=2.0)))
    return table.iloc[order].reset_index(drop=True)

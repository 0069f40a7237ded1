"""Which donors have which of two conditions, as a table of cells says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.errors import InputError
from spaf_analysis.tables import labels_of

if TYPE_CHECKING:
    import anndata as ad


def compared_donors(
    table: ad.AnnData, condition: str, donor: str, contrast: tuple[str, str] | None
) -> tuple[NDArray[np.int64], list[str], NDArray[np.bool_], tuple[str, str]]:
    """Return the donor of each cell (-1 for those of other conditions), donors, which are of the first, and the two.

    Raises
    ------
    InputError
        If a column is missing, it is not said which conditions are meant, a condition has fewer than two donors, or a
        donor has two conditions.
    """
    of_condition, conditions = labels_of(table, condition, "condition")
    of_donor, donors = labels_of(table, donor, "donor")
    if contrast is None and len(conditions) > 2:
        raise InputError(
            f"obs column {condition!r} has {len(conditions)} conditions; say with contrast which two to compare: "
            f"{', '.join(conditions)}."
        )
    names = (conditions[0], conditions[1]) if contrast is None else contrast
    for name in names:
        if name not in conditions:
            raise InputError(f"obs column {condition!r} has no condition {name!r}; it has: {', '.join(conditions)}.")
    if names[0] == names[1]:
        raise InputError(f"contrast names the condition {names[0]!r} twice; name two of: {', '.join(conditions)}.")
    pair = [conditions.index(name) for name in names]
    known = np.isin(of_condition, pair) & (of_donor >= 0)
    both = pd.DataFrame({"donor": of_donor[known], "condition": of_condition[known]}).drop_duplicates()
    twice = both["donor"][both["donor"].duplicated()]
    if len(twice):
        raise InputError(
            f"donor {donors[int(twice.iloc[0])]!r} has both conditions {names[0]!r} and {names[1]!r}: donors are what "
            "is compared, so each must have one."
        )
    both = both.sort_values("donor")
    is_first = both["condition"].to_numpy() == pair[0]
    for name, n in zip(names, (int(is_first.sum()), int((~is_first).sum())), strict=True):
        if n < 2:
            raise InputError(f"condition {name!r} has {n} donor; at least 2 of each condition are needed.")
    chosen = both["donor"].to_numpy()
    rank = np.full(len(donors), -1, dtype=np.int64)
    rank[chosen] = np.arange(len(chosen))
    return np.where(known, rank[of_donor], -1), [donors[code] for code in chosen], is_first, names

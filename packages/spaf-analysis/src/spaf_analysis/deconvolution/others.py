"""Proportions that another tool found, in the place where those of `deconvolve` are looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spaf_analysis.deconvolution.tool import column_names
from spaf_analysis.errors import InputError
from spaf_analysis.keys import PROPORTIONS
from spaf_analysis.tables import table_of
from spaf_model import check_key

if TYPE_CHECKING:
    from spaf_model import Cells

# Where they leave a table of spots x types: Tangram's are scores that need not sum to 1.
SOURCES = {"flashdeconv": "FlashDeconv", "tangram_ct_pred": "Tangram"}


def take_proportions(
    adata: Cells, source: str | None = None, *, key_added: str = PROPORTIONS, table_key: str | None = None
) -> None:
    """Take what FlashDeconv, Tangram or another tool left in `obsm`, for figures and the report.

    Writes ``obsm[key_added]`` (spots x types, rows divided by their sums; NaN for spots of which nothing is known) and
    ``uns[key_added]``. What an earlier run left of errors, shares of counts and misfits under this key is removed.

    Parameters
    ----------
    adata
        Spots, or a SpatialData.
    source
        Key of `obsm` with a DataFrame of spots x types; None: that of FlashDeconv or Tangram, whichever is there.
    key_added
        Key to write.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Raises
    ------
    InputError
        If there is no such table, several could be meant, or it holds what cannot be shares. Nothing is written then.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    if source is None:
        there = [key for key in SOURCES if key in table.obsm]
        if len(there) != 1:
            found = f"both {' and '.join(map(repr, there))}" if there else "none of " + ", ".join(map(repr, SOURCES))
            raise InputError(f"say with source which key of obsm holds proportions: there is {found}.")
        source = there[0]
    given = table.obsm.get(source)
    if not isinstance(given, pd.DataFrame):
        names = ", ".join(key for key in table.obsm if isinstance(table.obsm[key], pd.DataFrame))
        raise InputError(f"obsm has no table {source!r} of spots x types; its tables are: {names or 'none'}.")
    if given.shape[1] < 2 or not all(pd.api.types.is_numeric_dtype(kind) for kind in given.dtypes):
        raise InputError(f"obsm[{source!r}] is no table of numbers of at least 2 types.")
    values = given.to_numpy(dtype=np.float64)
    if (values[np.isfinite(values)] < 0.0).any():
        raise InputError(f"obsm[{source!r}] holds values below 0, which are no shares.")
    total = values.sum(axis=1, keepdims=True)
    shares = np.full(values.shape, np.nan)
    np.divide(values, total, out=shares, where=np.isfinite(total) & (total > 0.0))
    types = [str(name) for name in given.columns]
    for name in (f"{key_added}_rna", f"{key_added}_error"):
        if name in table.obsm:
            del table.obsm[name]
    for name in (f"{key_added}_misfit", f"{key_added}_fits"):
        if name in table.obs:
            del table.obs[name]
    table.obsm[key_added] = pd.DataFrame(shares, index=table.obs_names, columns=column_names(types))
    table.uns[key_added] = {
        "method": SOURCES.get(source, source),
        "types": np.array(types, dtype=object),
        "n_empty": int(np.isnan(shares[:, 0]).sum()),
    }

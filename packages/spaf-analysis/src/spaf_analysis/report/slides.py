"""The slides that a report draws."""

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from spaf_analysis.keys import SLIDE


def largest_slides(adata: ad.AnnData, max_slides: int) -> list[tuple[str, NDArray[np.int64], str]]:
    """Name, cells and ending of titles for the slides with most cells."""
    if SLIDE not in adata.obs:
        return [("the tissue", np.arange(adata.n_obs), "")]
    names = adata.obs[SLIDE].astype(str)
    largest = names.value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:max_slides]
    return [
        (name, np.flatnonzero((names == name).to_numpy()), f", {name}" if names.nunique() > 1 else "")
        for name in largest
    ]


def values_of(adata: ad.AnnData, column: str) -> list[str]:
    """Return the different values of a column of `obs`, without those that say nothing."""
    if column not in adata.obs:
        return []
    return [value for value in sorted(set(adata.obs[column].dropna().astype(str))) if value and value != "unknown"]

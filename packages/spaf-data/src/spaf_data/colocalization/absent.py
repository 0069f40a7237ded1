"""What a slide without transcripts has in the place of co-localised gene pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from spaf_data import keys

if TYPE_CHECKING:
    from anndata import AnnData


def leave_uncolocalized(adata: AnnData, *, key_added: str = keys.COLOCALIZATION) -> None:
    """Write down that nothing is known of co-localisation, for a slide without transcripts.

    Parameters
    ----------
    adata
        Table of the slide.
    key_added
        Key of ``obsm`` and ``uns``.

    Returns
    -------
    None. Writes ``obsm[key_added]`` without columns and ``uns[key_added]`` without pairs, of the method ``"none"``.
    """
    adata.obsm[key_added] = sparse.csr_matrix(np.empty((adata.n_obs, 0), np.int8))
    names = np.empty(0, dtype=object)
    adata.uns[key_added] = {
        "method": "none",
        "parameters": {},
        "pairs": pd.DataFrame({"gene_a": names, "gene_b": names}),
    }

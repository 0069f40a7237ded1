"""The gene pairs that are enriched in single cells, kept in the place of communities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from spaf_data import keys

if TYPE_CHECKING:
    from anndata import AnnData

# Standard deviations above what shuffled labels give: 2 % of the pairs that are joined in a cell by chance.
MIN_Z = 2.0


def keep_enriched(
    adata: AnnData,
    *,
    min_z: float = MIN_Z,
    key: str = keys.COLOCALIZATION_ENRICHMENT,
    key_added: str = keys.COLOCALIZATION,
) -> None:
    """Keep of the z scores of single cells which of their gene pairs are enriched, as a corpus takes them.

    Parameters
    ----------
    adata
        Table of a slide after ``colocalize(.., method="enrichment", key_added=key)`` with scores of cells.
    min_z
        A pair is co-localised in a cell if its z is above this.
    key
        Of the scores. ``obsm[key]`` is removed: a score of every joined pair is several times the rest of the table.
    key_added
        Key under which results are stored.

    Returns
    -------
    None. Writes ``obsm[key_added]``, CSR of int8 ones, cells x gene pairs that are enriched in any cell, and
    ``uns[key_added]`` with ``method`` (``"enriched"``), ``parameters`` and ``pairs`` as `colocalize` does.
    """
    scores, record = sparse.csr_matrix(adata.obsm.pop(key)), adata.uns[key]
    flags = sparse.csr_matrix((scores.data > min_z, scores.indices, scores.indptr), shape=scores.shape, dtype=np.int8)
    flags.eliminate_zeros()
    kept = np.flatnonzero(flags.getnnz(axis=0))
    adata.obsm[key_added] = flags[:, kept]
    adata.uns[key_added] = {
        "method": "enriched",
        "parameters": {**record["parameters"], "min_z": float(min_z)},
        "pairs": record["pairs"].iloc[kept].reset_index(drop=True),
    }

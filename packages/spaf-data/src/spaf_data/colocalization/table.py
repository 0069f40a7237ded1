"""The cells x gene pairs table, for marker analysis."""

from __future__ import annotations

from anndata import AnnData

from spaf_data import keys
from spaf_data.errors import InputError


def gene_pair_table(adata: AnnData, *, key: str = keys.COLOCALIZATION) -> AnnData:
    """Return the co-localised gene pairs of each cell as a table of its own.

    Parameters
    ----------
    adata
        Table of a slide after `colocalize`.
    key
        What `colocalize` was given as ``key_added``.

    Returns
    -------
    Table of cells x gene pairs: ``X`` a copy of ``obsm[key]``, ``var`` with gene_a and gene_b (and the statistics of
    the pair, for enrichment), ``var_names`` as ``"gene_a|gene_b"``, and ``obs`` and ``obsm["spatial"]`` of the slide.

    Raises
    ------
    InputError
        If there is no such result, or its matrix and its pairs do not belong together.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from anndata import AnnData
    >>> from scipy import sparse
    >>> adata = AnnData(np.zeros((2, 2), np.float32), var=pd.DataFrame(index=["ACTB", "KRT5"]))
    >>> adata.obsm["colocalization"] = sparse.csr_matrix(np.array([[1], [0]], dtype=np.int8))
    >>> adata.uns["colocalization"] = {"pairs": pd.DataFrame({"gene_a": ["ACTB"], "gene_b": ["KRT5"]})}
    >>> gene_pair_table(adata).var_names.tolist()
    ['ACTB|KRT5']
    """
    if key not in adata.obsm or key not in adata.uns:
        raise InputError(
            f"the table has no co-localised gene pairs under {key!r}; obsm has: {', '.join(adata.obsm) or 'nothing'}; "
            "run colocalize first"
        )
    result = adata.uns[key]
    if adata.obsm[key].shape[1] != len(result["pairs"]):
        raise InputError(
            f"obsm {key!r} has {adata.obsm[key].shape[1]} columns, but uns {key!r} names {len(result['pairs'])} gene "
            "pairs: they are of two calls of colocalize, so run it again"
        )
    var = result.get("statistics", result["pairs"]).copy()
    var.index = (var["gene_a"].astype(str) + "|" + var["gene_b"].astype(str)).to_numpy()
    table = AnnData(adata.obsm[key].copy(), obs=adata.obs.copy(), var=var)
    if keys.SPATIAL in adata.obsm:
        table.obsm[keys.SPATIAL] = adata.obsm[keys.SPATIAL].copy()
    return table

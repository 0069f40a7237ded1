"""The AnnData of a slide: where everything that is known of its cells goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spaf_data import keys
from spaf_data._record import versions

if TYPE_CHECKING:
    from scipy import sparse

    from spaf_data.transcripts import Account


def slide_table(
    *,
    counts: sparse.csr_matrix,
    cells: np.ndarray,
    genes: Sequence[str],
    gene_ids: Sequence[str] | None,
    centroids: np.ndarray,
    areas: np.ndarray | None,
    nucleus_fraction: np.ndarray,
    n_cells: int,
    account: Account,
    described: dict[str, str | None],
    metadata: dict[str, str],
    parameters: dict[str, Any],
    extra: dict[str, Any] | None = None,
    of_cell: dict[str, np.ndarray] | None = None,
) -> AnnData:
    """Put the kept cells of a slide together; `spaf_data.bin_transcripts` says which key holds what.

    Parameters
    ----------
    counts
        CSR int32, kept cells x genes, without explicit zeros.
    cells, centroids, areas, nucleus_fraction
        Of the kept cells.
    genes, gene_ids
        Of the columns of `counts`.
    n_cells
        Cells before small ones were dropped.
    account
        Of the transcripts of the run.
    described
        ``slide``, ``tissue``, ``condition``, ``species`` and ``assay`` as given; None where not.
    metadata
        What the run says of itself, for what was not given.
    parameters
        How the table was made.
    extra
        Further columns of ``obs`` under names that this package does not use.
    of_cell
        Slide and context of each kept cell, where the run says that they differ.
    """
    counts.sort_indices()
    n_transcripts = np.asarray(counts.sum(axis=1, dtype=np.int64)).reshape(-1)
    binned = int(n_transcripts.sum())
    obs = pd.DataFrame(
        {keys.N_TRANSCRIPTS: n_transcripts.astype(np.int32), keys.NUCLEUS_FRACTION: nucleus_fraction},
        index=pd.Index(cells.astype(object), dtype=object),
    )
    if areas is not None:
        obs[keys.AREA] = areas
    known: dict[str, Any] = {}
    for key, value in described.items():
        differing = (of_cell or {}).get(key) if value is None else None
        if differing is not None:
            obs[key] = pd.Categorical(differing.astype(str).astype(object))
            known[key] = [str(name) for name in obs[key].cat.categories]
        else:
            known[key] = value or metadata.get(key) or keys.UNKNOWN
            obs[key] = pd.Categorical.from_codes(np.zeros(len(cells), np.int8), categories=pd.Index([known[key]]))
    for name, column in (extra or {}).items():
        if name not in obs:
            obs[name] = column
    var = pd.DataFrame(index=pd.Index(np.array(genes, dtype=object), dtype=object))
    if gene_ids is not None:
        var[keys.GENE_IDS] = np.array(gene_ids, dtype=object)
    return AnnData(
        X=counts,
        obs=obs,
        var=var,
        obsm={keys.SPATIAL: centroids},
        uns={
            keys.SPAF: {
                "versions": versions(),
                "parameters": {**parameters, **known},
                "account": {
                    **account.as_dict(),
                    "in_small_cells": account.kept - binned,
                    "binned": binned,
                    "cells": n_cells,
                    "small_cells": n_cells - len(cells),
                    "kept_cells": len(cells),
                },
            }
        },
    )

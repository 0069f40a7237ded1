"""Gene pairs that mark groups of cells, of an AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from spaf_analysis.errors import InputError
from spaf_analysis.gene_pairs.markers import pair_markers
from spaf_analysis.genes import check_gene_names, checked_counts
from spaf_analysis.keys import COLOCALIZATION, ENRICHMENT, GENE_PAIR_MARKERS
from spaf_analysis.ligrec.compute import adjusted
from spaf_analysis.tables import labels_of, table_of
from spaf_model import check_key

if TYPE_CHECKING:
    import anndata as ad

    from spaf_model import Cells

FDR = 0.05


def gene_pair_markers(
    adata: Cells,
    *,
    groupby: str,
    min_cells: int = 10,
    colocalization_key: str | None = None,
    layer: str | None = None,
    table_key: str | None = None,
    key_added: str = GENE_PAIR_MARKERS,
) -> None:
    """Find gene pairs that mark groups of cells by more than their two genes do, into `uns[key_added]`.

    Genes that a group has more of are also found together more often, so a pair counts only for what it adds: a
    likelihood-ratio test of the group on both genes and the depth against the same and the pair.

    Parameters
    ----------
    adata
        Slide with counts and the cells x gene pairs of `spaf_data.colocalize` (preferably `method="enrichment"`, whose
        score of a cell is a z), or a SpatialData. Written to `uns[key_added]`: `table` (`group`, `gene_a`, `gene_b`,
        `n_cells`, `coefficient`, `ratio`, `p`, `fdr` over all pairs and groups, `p_presence`, `fdr_presence` of whether
        the pair is seen at all, `called`, `called_presence`), `n_tested`, `n_called`, `n_presence` (markers by
        presence) and `n_vanished` (those of them that add nothing to their genes), `parameters`.
    groupby
        Column of `obs`; cells without a group are left out.
    min_cells
        Pairs seen in fewer cells, and groups of fewer, are not tested.
    colocalization_key
        Key of `obsm` and `uns`; None: that of enrichment where `obsm` has it, else of communities.
    layer
        With counts; None: `X`.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.

    Raises
    ------
    InputError
        If there are no co-localised gene pairs, a gene of theirs is not in the table, the column is missing, two
        genes have one name, no group or no pair has enough cells, or what should be counts is none.
    """
    check_key(key_added)
    if min_cells < 1:
        raise InputError(f"min_cells must be at least 1, not {min_cells}.")
    table = table_of(adata, table_key)
    check_gene_names(table)
    code, names = labels_of(table, groupby, "groupby")
    if colocalization_key is None:
        colocalization_key = scores_key(table)
    if colocalization_key not in table.obsm or colocalization_key not in table.uns:
        raise InputError(
            f"the table has no co-localised gene pairs {colocalization_key!r} of its cells (spaf_data.colocalize with "
            "cell_scores writes them)."
        )
    named = pd.DataFrame(table.uns[colocalization_key]["pairs"])
    matrix = sparse.csr_matrix(table.obsm[colocalization_key])
    if matrix.shape[1] != len(named):
        raise InputError(
            f"obsm[{colocalization_key!r}] has {matrix.shape[1]} columns, but uns[{colocalization_key!r}] names "
            f"{len(named)} gene pairs: they are of two calls of colocalize."
        )
    if not np.isfinite(matrix.data).all():
        raise InputError(f"obsm[{colocalization_key!r}] holds scores that are not finite.")
    used = np.flatnonzero(code >= 0)
    of_used, code = sparse.csc_matrix(matrix[used], dtype=np.float64), code[used]
    of_used.eliminate_zeros()
    kept = np.flatnonzero(of_used.getnnz(axis=0) >= min_cells)
    sizes = np.bincount(code, minlength=len(names))
    groups = np.flatnonzero((sizes >= min_cells) & (sizes < len(code)))
    if not len(groups):
        raise InputError(
            f"no group of obs column {groupby!r} has {min_cells} cells (the largest has {sizes.max()}) and cells "
            "beside it; lower min_cells or take coarser groups."
        )
    if not len(kept):
        raise InputError(f"no gene pair is seen in {min_cells} cells; lower min_cells.")
    place = table.var_names.get_indexer(pd.Index(named.loc[kept, ["gene_a", "gene_b"]].to_numpy().ravel().astype(str)))
    if (place < 0).any():
        gene = named.loc[kept, ["gene_a", "gene_b"]].to_numpy().ravel()[place < 0][0]
        raise InputError(f"uns[{colocalization_key!r}] names the gene {gene!r}, which the table does not have.")
    counts = sparse.csc_matrix(checked_counts(table, layer, "the table")[used], dtype=np.float64)
    rows = []
    for group in groups.tolist():
        found = pair_markers(counts, of_used[:, kept], place.reshape(-1, 2), code == group)
        rows.append(
            named.loc[kept, ["gene_a", "gene_b"]].assign(
                group=names[group], n_cells=of_used.getnnz(axis=0)[kept], coefficient=found.coefficient,
                ratio=found.ratio, p=found.p, p_presence=found.p_presence, more=found.more_present,
            )
        )  # fmt: skip
    markers = pd.concat(rows, ignore_index=True)
    markers["fdr"] = adjusted(markers["p"].to_numpy())
    markers["fdr_presence"] = adjusted(markers["p_presence"].to_numpy())
    markers["called"] = (markers["fdr"] <= FDR) & (markers["coefficient"] > 0)
    markers["called_presence"] = (markers["fdr_presence"] <= FDR) & markers["more"]
    order = [
        "group", "gene_a", "gene_b", "n_cells", "coefficient", "ratio", "p", "fdr", "p_presence", "fdr_presence",
        "called", "called_presence",
    ]  # fmt: skip
    markers = markers[order].sort_values(["p", "group", "gene_a", "gene_b"], kind="stable", ignore_index=True)
    table.uns[key_added] = {
        "table": markers,
        "n_tested": len(markers),
        "n_called": int(markers["called"].sum()),
        "n_presence": int(markers["called_presence"].sum()),
        "n_vanished": int((markers["called_presence"] & ~markers["called"]).sum()),
        "parameters": {"groupby": groupby, "key": colocalization_key, "min_cells": min_cells, "layer": layer or ""},
    }


def scores_key(table: ad.AnnData) -> str:
    """Return the key of the scores of cells: z of enrichment where a slide has them, else communities."""
    return ENRICHMENT if ENRICHMENT in table.obsm else COLOCALIZATION


def markers_sentence(stored: Mapping[str, Any]) -> str:
    """Say how many pairs mark a group, and how many only seemed to."""
    return (
        f"{stored['n_called']:,} of {stored['n_tested']:,} pairs and groups tested add to their two genes; "
        f"{stored['n_presence']:,} are markers by presence, of which {stored['n_vanished']:,} add nothing to "
        "their genes."
    )

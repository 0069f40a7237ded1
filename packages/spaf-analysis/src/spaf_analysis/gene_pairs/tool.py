"""The gene pairs that sit together in cells more often than expected, of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from scipy import sparse

from spaf_analysis.errors import InputError
from spaf_analysis.gene_pairs.compute import GenePairs, from_enrichment, from_overlap
from spaf_analysis.keys import COLOCALIZATION, ENRICHMENT, GENE_PAIRS
from spaf_analysis.tables import stored_result, table_of
from spaf_model import check_key

if TYPE_CHECKING:
    from spaf_model import Cells


def enriched_gene_pairs(
    adata: Cells,
    *,
    enrichment_key: str = ENRICHMENT,
    colocalization_key: str = COLOCALIZATION,
    min_cells: int = 10,
    table_key: str | None = None,
) -> GenePairs:
    """Rank gene pairs by how far their co-localisation goes beyond expectation.

    The number of cells in which two genes are co-localised favours abundant genes, so it is compared with what is
    expected of genes of that abundance:

    - "enrichment", when `uns[enrichment_key]` holds the statistics of `spaf_data.colocalize(method="enrichment")`:
      neighbouring transcripts of the two genes against the moments that shuffled gene labels within each cell would
      give, in closed form. Expression of a cell is fully accounted for. Ranked by `z`.
    - "overlap", otherwise, from the cells x gene pairs in `obsm[colocalization_key]`: the number of cells in which the
      two are co-localised against what is expected if the cells in which either takes part in a co-localised pair were
      spread independently; a one-sided hypergeometric test. Genes of one cell type come out high as well. Ranked by
      `p`.

    Parameters
    ----------
    adata
        Slide with either of the two, or a SpatialData.
    enrichment_key
        Key in `uns` of a dict with a DataFrame under "statistics" (`gene_a, gene_b, observed, expected, z, p, fdr,
        n_cells`) of the pairs that were seen and, under "account", how many were `tested`.
    colocalization_key
        Key in `obsm` of cells x gene pairs and in `uns` of a dict with the names of the pairs under "pairs".
    min_cells
        Pairs seen in fewer cells are not ranked.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    GenePairs
        With the Benjamini-Hochberg false discovery rate over all pairs tested.

    Raises
    ------
    InputError
        If the slide has neither, a table lacks a column, or matrix and pairs do not belong together.
    """
    table = table_of(adata, table_key)
    found = 0
    if colocalization_key in table.obsm:
        present = sparse.csc_matrix(table.obsm[colocalization_key])
        found = int((present.getnnz(axis=0) > 0).sum())
    if enrichment_key in table.uns:
        return from_enrichment(table.uns[enrichment_key], enrichment_key, min_cells, found)
    if colocalization_key in table.obsm and colocalization_key in table.uns:
        pairs = pd.DataFrame(table.uns[colocalization_key]["pairs"])
        if present.shape[1] != len(pairs):
            raise InputError(
                f"obsm[{colocalization_key!r}] has {present.shape[1]} columns, but uns[{colocalization_key!r}] names "
                f"{len(pairs)} gene pairs: they are of two calls of colocalize."
            )
        return from_overlap(present, pairs, min_cells, found)
    raise InputError(
        f"the slide has neither uns[{enrichment_key!r}] nor obsm[{colocalization_key!r}]: "
        "no co-localised gene pairs were computed (spaf_data.colocalize)."
    )


def gene_pairs(
    adata: Cells,
    *,
    enrichment_key: str = ENRICHMENT,
    colocalization_key: str = COLOCALIZATION,
    min_cells: int = 10,
    table_key: str | None = None,
    key_added: str = GENE_PAIRS,
) -> None:
    """Rank gene pairs by how far their co-localisation goes beyond expectation, into `uns[key_added]`.

    Written: a dict with the ranked `table` and `method`, `n_tested`, `n_significant`, `n_colocalized`, `n_untested` of
    `GenePairs`.

    Parameters
    ----------
    adata, enrichment_key, colocalization_key, min_cells, table_key
        As for `enriched_gene_pairs`.
    key_added
        Key of `uns` to write.

    Raises
    ------
    InputError
        As `enriched_gene_pairs`.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    ranked = enriched_gene_pairs(
        table, enrichment_key=enrichment_key, colocalization_key=colocalization_key, min_cells=min_cells
    )
    table.uns[key_added] = ranked.stored()


def stored_gene_pairs(adata: Cells, *, key: str = GENE_PAIRS, table_key: str | None = None) -> GenePairs:
    """Return what `gene_pairs` wrote to `uns[key]`.

    Raises
    ------
    InputError
        If it is not there.
    """
    table = table_of(adata, table_key)
    stored = stored_result(table, key, "gene pairs", "tl.gene_pairs writes them")
    return GenePairs(**stored)

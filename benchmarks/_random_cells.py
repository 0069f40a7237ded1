"""Cells with a given number of genes, for measurements that do not depend on what the genes are."""

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

# Standard deviation of the logarithm of the number of genes of a cell: .35 in Xenium sections of human breast cancer.
SPREAD = 0.35


def random_cells(names: list[str], n_cells: int, mean_genes: float, rng: np.random.Generator) -> anndata.AnnData:
    """Return cells whose numbers of genes are log-normal with the mean `mean_genes`, all counts of a cell different."""
    location = np.log(mean_genes) - SPREAD**2 / 2
    n_genes = np.exp(rng.normal(location, SPREAD, n_cells)).round().astype(int).clip(1, len(names))
    rows = [rng.choice(len(names), n, replace=False) for n in n_genes]
    counts = [rng.permutation(n) + 1.0 for n in n_genes]
    matrix = sp.csr_matrix(
        (np.concatenate(counts).astype(np.float32), np.concatenate(rows), np.concatenate([[0], np.cumsum(n_genes)])),
        shape=(n_cells, len(names)),
    )
    matrix.sort_indices()
    context = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}
    return anndata.AnnData(
        matrix,
        obs=pd.DataFrame(context, index=[f"cell{cell}" for cell in range(n_cells)]),
        var=pd.DataFrame({"gene_name": names}, index=names),
    )

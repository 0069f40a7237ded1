"""Score gene pairs with the published code; run by colocalization_truth.py in an environment of its own.

Reads columns of transcripts from the .npz that is named first and writes, to the one that is named second, the number
of cells in which the published code calls each gene pair and the sum of its frequencies (genes x genes).
"""

import sys

import numpy as np
import pandas as pd
from colocalization_peer import published_module


def main() -> None:
    """Score the pairs of the columns that the arguments name."""
    columns = np.load(sys.argv[1], allow_pickle=False)
    table = pd.DataFrame({name: columns[name] for name in ("x", "y", "z")})
    table["gene"] = columns["genes"][columns["gene"]].astype(object)
    table["cell_id"] = columns["cell"]
    genes = columns["genes"]
    published = published_module()
    cells = np.zeros((len(genes), len(genes)))
    frequency = np.zeros((len(genes), len(genes)))
    for cell in np.unique(columns["cell"]):
        graph = published.KNN_Radius_Graph(5.0, table, True, cell, "gene", genes)
        called, share, _ = graph.get_gene_matrix(3, 3, False)
        cells += called
        frequency += share
    np.savez(sys.argv[2], cells=cells, frequency=frequency)


if __name__ == "__main__":
    main()

"""Time the published gene co-localisation; run by colocalization_speed.py in an environment of its own.

Needs ``spatialformer==0.1.8`` (of which only the file ``gene_gene_calculation/process.py`` is loaded), networkx and
python-louvain. Prints one JSON object.
"""

import importlib.util
import json
import sys
import time
import types
from importlib.metadata import distribution
from pathlib import Path

import community
import networkx as nx
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree


def published_module() -> types.ModuleType:
    """Load process.py; the two helpers that it imports from its package are not used by the timed function."""
    helpers = types.ModuleType("utils")
    helpers.unique_list_mapping_to_one_hot = helpers.one_graph_splits_nx = None
    sys.modules["utils"] = helpers
    path = Path(str(distribution("spatialformer").locate_file("spatialformer/gene_gene_calculation/process.py")))
    spec = importlib.util.spec_from_file_location("process", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Read the columns named by the arguments and print seconds per cell, and modularities when asked."""
    columns = np.load(sys.argv[1], allow_pickle=False)
    copies, n_sampled, with_modularity = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "modularity"
    n_cells = int(columns["cell"].max()) + 1
    table = pd.DataFrame({name: np.tile(columns[name], copies) for name in ("x", "y", "z")})
    table["gene"] = np.tile(columns["genes"][columns["gene"]].astype(object), copies)
    table["cell_id"] = np.concatenate([columns["cell"] + k * n_cells for k in range(copies)])
    genes = np.array(sorted(table["gene"].unique()))
    published = published_module()
    sample = np.random.default_rng(0).choice(n_cells, min(n_sampled, n_cells), replace=False)
    seconds = []
    for cell in sample:
        started = time.perf_counter()
        published.KNN_Radius_Graph(5.0, table, True, cell, "gene", genes).get_gene_matrix(3, 3, False)
        seconds.append(time.perf_counter() - started)
    result = {"table_cells": n_cells * copies, "timed_cells": len(sample), "seconds_per_cell": float(np.mean(seconds))}
    if with_modularity:
        result["modularity"] = []
        for cell in range(n_cells):
            own = columns["cell"] == cell
            points = np.column_stack([columns[name][own] for name in ("x", "y", "z")]).astype(float)
            graph = nx.Graph()
            graph.add_nodes_from(range(len(points)))
            graph.add_edges_from(cKDTree(points).query_pairs(5.0))
            partition = community.best_partition(graph, random_state=0)
            result["modularity"].append(community.modularity(partition, graph) if graph.number_of_edges() else 0.0)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

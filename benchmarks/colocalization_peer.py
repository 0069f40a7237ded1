"""Time the published gene co-localisation; run by colocalization_speed.py in an environment of its own.

Needs ``spatialformer==0.1.8`` (of which only the file ``gene_gene_calculation/process.py`` is loaded), networkx and
python-louvain. Prints one JSON object.
"""

import importlib.util
import json
import sys
import time
import types
from importlib.metadata import distribution, version
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
    """Read the transcripts named by the arguments and print seconds per cell, and modularities when asked."""
    columns = np.load(sys.argv[1], allow_pickle=False)
    n_sampled, with_modularity = int(sys.argv[3]), sys.argv[4] == "modularity"
    table = pd.read_csv(sys.argv[2])  # as find_gene_interaction.py reads what it is given
    n_cells = table["cell_id"].nunique()
    genes = np.array(sorted(table["gene"].unique()))
    published = published_module()
    ids = np.asarray(table["cell_id"].unique(), dtype=object)
    sample = np.random.default_rng(0).choice(ids, min(n_sampled, len(ids)), replace=False)
    seconds, processor_seconds = [], []
    for cell in sample:
        started, used = time.perf_counter(), time.process_time()
        published.KNN_Radius_Graph(5.0, table, True, cell, "gene", genes).get_gene_matrix(3, 3, False)
        seconds.append(time.perf_counter() - started)
        processor_seconds.append(time.process_time() - used)
    result = {
        "table_cells": n_cells,
        "table_transcripts": len(table),
        "timed_cells": len(sample),
        "seconds_per_cell": float(np.mean(seconds)),
        "processor_seconds_per_cell": float(np.mean(processor_seconds)),
        "packages": {name: version(name) for name in ("pandas", "networkx", "python-louvain")},
    }
    if with_modularity:
        result["modularity"] = []
        for cell in range(int(columns["cell"].max()) + 1):
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

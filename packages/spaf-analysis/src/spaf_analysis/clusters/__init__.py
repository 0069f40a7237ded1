"""Clusters and a map of the cells in the space of an embedding."""

from spaf_analysis.clusters.compute import N_NEIGHBORS, leiden, markers, umap
from spaf_analysis.clusters.tool import cluster, marker_genes
from spaf_analysis.tables import embedded_cells

__all__ = ["N_NEIGHBORS", "cluster", "embedded_cells", "leiden", "marker_genes", "markers", "umap"]

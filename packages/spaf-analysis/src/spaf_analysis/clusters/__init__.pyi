"""Clusters and a map of the cells in the space of an embedding."""

from .compute import leiden, markers, umap
from .tool import cluster, marker_genes

__all__ = ["cluster", "leiden", "marker_genes", "markers", "umap"]

"""Genes with a pattern in space."""

from spaf_analysis.spatial_genes.compute import morans_i, rank_by_pattern
from spaf_analysis.spatial_genes.tool import spatial_genes, spatially_variable_genes

__all__ = ["morans_i", "rank_by_pattern", "spatial_genes", "spatially_variable_genes"]

"""Genes with a pattern in space."""

from .compute import morans_i, rank_by_pattern
from .tool import spatial_genes, spatially_variable_genes

__all__ = ["morans_i", "rank_by_pattern", "spatial_genes", "spatially_variable_genes"]

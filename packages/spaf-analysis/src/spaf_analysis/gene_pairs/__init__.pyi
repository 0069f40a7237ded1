"""The gene pairs that sit together in cells more often than expected."""

from .compute import FDR, GenePairs
from .tool import enriched_gene_pairs, gene_pairs, stored_gene_pairs

__all__ = ["FDR", "GenePairs", "enriched_gene_pairs", "gene_pairs", "stored_gene_pairs"]

"""The gene pairs that sit together in cells more often than expected."""

from spaf_analysis.gene_pairs.compute import FDR, GenePairs
from spaf_analysis.gene_pairs.tool import enriched_gene_pairs, gene_pairs, stored_gene_pairs

__all__ = ["FDR", "GenePairs", "enriched_gene_pairs", "gene_pairs", "stored_gene_pairs"]

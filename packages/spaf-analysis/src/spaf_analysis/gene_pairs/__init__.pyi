"""The gene pairs that sit together in cells more often than expected."""

from .compute import FDR, GenePairs
from .groups import gene_pair_markers
from .markers import PairMarkers, pair_markers
from .tool import enriched_gene_pairs, gene_pairs, stored_gene_pairs

__all__ = [
    "FDR",
    "GenePairs",
    "PairMarkers",
    "enriched_gene_pairs",
    "gene_pair_markers",
    "gene_pairs",
    "pair_markers",
    "stored_gene_pairs",
]

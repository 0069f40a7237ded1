"""Names of what the earlier stages wrote and the report writes and reads, in one place."""

from spaf_data.keys import (
    COLOCALIZATION,
    CONNECTIVITIES,
    GAP,
    N_TRANSCRIPTS,
    SLIDE,
    SPAF,
    SPATIAL,
    SPLIT,
    TRAIN,
    VALIDATION,
)

EMBEDDING = "X_SpaF"
ENRICHMENT = "colocalization_enrichment"
CLUSTERS = "spaf_cluster"
UMAP = "X_SpaF_umap"
MORANS_I = "morans_i"
GENE_PAIRS = "gene_pairs"
CELL_PAIRS = "cell_pairs"
NEIGHBORS = "spatial_neighbors"

__all__ = [
    "CELL_PAIRS",
    "CLUSTERS",
    "COLOCALIZATION",
    "CONNECTIVITIES",
    "EMBEDDING",
    "ENRICHMENT",
    "GAP",
    "GENE_PAIRS",
    "MORANS_I",
    "NEIGHBORS",
    "N_TRANSCRIPTS",
    "SLIDE",
    "SPAF",
    "SPATIAL",
    "SPLIT",
    "TRAIN",
    "UMAP",
    "VALIDATION",
]

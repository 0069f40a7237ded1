"""Names of what the earlier stages wrote and the report reads, in one place."""

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

__all__ = [
    "CLUSTERS",
    "COLOCALIZATION",
    "CONNECTIVITIES",
    "EMBEDDING",
    "ENRICHMENT",
    "GAP",
    "N_TRANSCRIPTS",
    "SLIDE",
    "SPAF",
    "SPATIAL",
    "SPLIT",
    "TRAIN",
    "VALIDATION",
]

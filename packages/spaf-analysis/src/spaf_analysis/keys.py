"""Names of what the earlier stages wrote and the report writes and reads, in one place."""

import spaf_data

COLOCALIZATION = spaf_data.keys.COLOCALIZATION
CONNECTIVITIES = spaf_data.keys.CONNECTIVITIES
GAP = spaf_data.keys.GAP
NO_VALUE = spaf_data.keys.NO_VALUE
N_TRANSCRIPTS = spaf_data.keys.N_TRANSCRIPTS
NEIGHBORS = spaf_data.keys.NEIGHBORS
SLIDE = spaf_data.keys.SLIDE
SPAF = spaf_data.keys.SPAF
SPATIAL = spaf_data.keys.SPATIAL
SPLIT = spaf_data.keys.SPLIT
TRAIN = spaf_data.keys.TRAIN
VALIDATION = spaf_data.keys.VALIDATION
ENRICHMENT = spaf_data.keys.COLOCALIZATION_ENRICHMENT

EMBEDDING = "X_SpaF"
CLUSTERS = "spaf_cluster"
UMAP = "X_SpaF_umap"
MORANS_I = "morans_i"
GENE_PAIRS = "gene_pairs"
GENE_PAIR_MARKERS = "gene_pair_markers"
CELL_PAIRS = "cell_pairs"
PROPORTIONS = "proportions"
LABEL_PRED = "label_pred"
UNKNOWN = "unknown"  # a label of cells that no class fits
NICHE_STATE = "X_SpaF_niche"
NICHES = "spaf_niche"
NICHE_DIFFERENCES = "spaf_niche_differences"
PATTERNS = "patterns"
TYPE_PAIRS = "type_pairs"
INTEGRATION = "integration"
PERTURBATION = "perturbation"
NEIGHBOUR_GENES = "neighbour_genes"
ATTENTION = "attention"
LIGREC = "ligrec"
LIGREC_TYPES = "ligrec_types"
IMPUTATION = "imputation"

__all__ = [
    "ATTENTION",
    "CELL_PAIRS",
    "CLUSTERS",
    "COLOCALIZATION",
    "CONNECTIVITIES",
    "EMBEDDING",
    "ENRICHMENT",
    "GAP",
    "GENE_PAIRS",
    "GENE_PAIR_MARKERS",
    "IMPUTATION",
    "INTEGRATION",
    "LABEL_PRED",
    "LIGREC",
    "LIGREC_TYPES",
    "MORANS_I",
    "NEIGHBORS",
    "NEIGHBOUR_GENES",
    "NICHES",
    "NICHE_DIFFERENCES",
    "NICHE_STATE",
    "NO_VALUE",
    "N_TRANSCRIPTS",
    "PATTERNS",
    "PERTURBATION",
    "PROPORTIONS",
    "SLIDE",
    "SPAF",
    "SPATIAL",
    "SPLIT",
    "TRAIN",
    "TYPE_PAIRS",
    "UMAP",
    "UNKNOWN",
    "VALIDATION",
]

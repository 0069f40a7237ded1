"""Figures of an AnnData or a SpatialData: each function returns matplotlib axes, whose ``figure`` can be saved."""

from spaf_analysis.annotate.plot import label_confusion, label_rejection, label_reliability
from spaf_analysis.attention.plot import attention
from spaf_analysis.cell_pairs.plot import cell_pairs
from spaf_analysis.clusters.plot import clusters, umap
from spaf_analysis.deconvolution.plot import proportion
from spaf_analysis.gene_pairs.plot import gene_pair_markers, gene_pairs, pair_robustness
from spaf_analysis.imputation.plot import imputation_accuracy
from spaf_analysis.integrate.plot import integration
from spaf_analysis.ligrec.plot import ligrec, ligrec_types
from spaf_analysis.niches.plot import niche_composition, niche_differences, niches
from spaf_analysis.patterns.plot import patterns
from spaf_analysis.perturbation.plot import perturbation
from spaf_analysis.spatial_genes.plot import spatial_gene
from spaf_analysis.type_pairs.plot import type_pairs

__all__ = [
    "attention",
    "cell_pairs",
    "clusters",
    "gene_pair_markers",
    "gene_pairs",
    "imputation_accuracy",
    "integration",
    "label_confusion",
    "label_rejection",
    "label_reliability",
    "ligrec",
    "ligrec_types",
    "niche_composition",
    "niche_differences",
    "niches",
    "pair_robustness",
    "patterns",
    "perturbation",
    "proportion",
    "spatial_gene",
    "type_pairs",
    "umap",
]

"""Analyses of an AnnData or a SpatialData, in the manner of scanpy's ``tl``: results in place."""

from spaf_analysis.annotate import annotate
from spaf_analysis.attention.tool import attention
from spaf_analysis.cell_pairs import cell_pairs
from spaf_analysis.clusters.tool import cluster, umap
from spaf_analysis.deconvolution import deconvolve, take_proportions
from spaf_analysis.gene_pairs import gene_pairs
from spaf_analysis.gene_pairs.groups import gene_pair_markers
from spaf_analysis.imputation.tool import impute
from spaf_analysis.integrate.tool import integrate
from spaf_analysis.ligrec.tool import ligrec
from spaf_analysis.ligrec.types import ligrec_types
from spaf_analysis.niches.comparison import niche_differences
from spaf_analysis.niches.tool import niches
from spaf_analysis.patterns.tool import patterns
from spaf_analysis.perturbation.neighbours import perturb_neighbours
from spaf_analysis.perturbation.tool import perturb
from spaf_analysis.spatial_genes import spatial_genes
from spaf_analysis.type_pairs.tool import type_pairs

__all__ = [
    "annotate",
    "attention",
    "cell_pairs",
    "cluster",
    "deconvolve",
    "gene_pair_markers",
    "gene_pairs",
    "impute",
    "integrate",
    "ligrec",
    "ligrec_types",
    "niche_differences",
    "niches",
    "patterns",
    "perturb",
    "perturb_neighbours",
    "spatial_genes",
    "take_proportions",
    "type_pairs",
    "umap",
]

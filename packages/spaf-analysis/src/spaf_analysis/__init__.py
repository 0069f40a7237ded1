"""Integration, annotation, co-localisation, metrics with baselines and reports on spatial embeddings."""

from importlib.metadata import version

from spaf_analysis import pl, tl
from spaf_analysis.cell_pairs import CellPairBenchmark, benchmark_cell_pairs
from spaf_analysis.clusters import cluster, marker_genes, umap
from spaf_analysis.errors import InputError
from spaf_analysis.gene_pairs import GenePairs, enriched_gene_pairs
from spaf_analysis.report import Report, ReportOptions, Section, make_report, render_html, write_report
from spaf_analysis.run import run_stages
from spaf_analysis.spatial_genes import morans_i, spatially_variable_genes

__all__ = [
    "CellPairBenchmark",
    "GenePairs",
    "InputError",
    "Report",
    "ReportOptions",
    "Section",
    "benchmark_cell_pairs",
    "cluster",
    "enriched_gene_pairs",
    "make_report",
    "marker_genes",
    "morans_i",
    "pl",
    "render_html",
    "run_stages",
    "spatially_variable_genes",
    "tl",
    "umap",
    "write_report",
]

__version__ = version("spaf-analysis")

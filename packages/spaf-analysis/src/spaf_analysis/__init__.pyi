"""Integration, annotation, co-localisation, metrics with baselines and reports on spatial embeddings."""

from . import pl, tl
from .cell_pairs import CellPairBenchmark, benchmark_cell_pairs
from .clusters import cluster, marker_genes, umap
from .errors import InputError
from .gene_pairs import GenePairs, enriched_gene_pairs
from .integrate import Integration, judge_integration
from .niches import judge_niches, niche_state
from .report import Report, ReportOptions, Section, make_report, render_html, write_report
from .run import run_stages
from .spatial_genes import morans_i, spatially_variable_genes
from .together import one_table

__all__ = [
    "CellPairBenchmark",
    "GenePairs",
    "InputError",
    "Integration",
    "Report",
    "ReportOptions",
    "Section",
    "benchmark_cell_pairs",
    "cluster",
    "enriched_gene_pairs",
    "judge_integration",
    "judge_niches",
    "make_report",
    "marker_genes",
    "morans_i",
    "niche_state",
    "one_table",
    "pl",
    "render_html",
    "run_stages",
    "spatially_variable_genes",
    "tl",
    "umap",
    "write_report",
]

__version__: str

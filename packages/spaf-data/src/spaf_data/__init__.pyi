"""Spatial-omics runs in, slide tables and training corpora out."""

from . import defaults as defaults
from . import keys as keys
from ._record import peak_rss_mb, write_text
from .binning import bin_transcripts
from .build import build_corpus
from .cell_graph import delaunay_pairs, nearest_neighbors, spatial_neighbors
from .colocalization import (
    GeneProximity,
    colocalize,
    gene_pair_table,
    gene_proximity,
    leave_uncolocalized,
    louvain,
    modularity,
    proximity_graph,
    robustness,
)
from .corpus import Block, BlockRef, Corpus, encode_block, stream_blocks, write_corpus
from .datasets import BREAST_WINDOW_METADATA, xenium_breast_window
from .distances import Distances
from .errors import InputError
from .folders import claim, whole_folder
from .gene_identity import GeneNames, GeneUnion, check_same_genes, join_genes
from .gene_statistics import GeneStatistics
from .options import BuildOptions, ReadOptions, SlideSource
from .pairs import easy_negatives, hard_negatives, positive_pairs
from .patterns import (
    Outlines,
    SubcellularPatterns,
    check_patterns,
    location_summary,
    read_outlines,
    subcellular_patterns,
)
from .readers import find_bundles, has_transcripts, read_counts, read_transcripts
from .sheet import read_sheet
from .simulate import simulate_bundle
from .slides import slide_column, slides_of_cells
from .sources import parse_columns, slide_sources
from .splits import split_regions, split_slides
from .table_genes import genes_of_table
from .transcripts import Account, Transcripts

__all__ = [
    "BREAST_WINDOW_METADATA",
    "Account",
    "Block",
    "BlockRef",
    "BuildOptions",
    "Corpus",
    "Distances",
    "GeneNames",
    "GeneProximity",
    "GeneStatistics",
    "GeneUnion",
    "InputError",
    "Outlines",
    "ReadOptions",
    "SlideSource",
    "SubcellularPatterns",
    "Transcripts",
    "bin_transcripts",
    "build_corpus",
    "check_patterns",
    "check_same_genes",
    "claim",
    "colocalize",
    "defaults",
    "delaunay_pairs",
    "easy_negatives",
    "encode_block",
    "find_bundles",
    "gene_pair_table",
    "gene_proximity",
    "genes_of_table",
    "hard_negatives",
    "has_transcripts",
    "join_genes",
    "keys",
    "leave_uncolocalized",
    "location_summary",
    "louvain",
    "modularity",
    "nearest_neighbors",
    "parse_columns",
    "peak_rss_mb",
    "positive_pairs",
    "proximity_graph",
    "read_counts",
    "read_outlines",
    "read_sheet",
    "read_transcripts",
    "robustness",
    "simulate_bundle",
    "slide_column",
    "slide_sources",
    "slides_of_cells",
    "spatial_neighbors",
    "split_regions",
    "split_slides",
    "stream_blocks",
    "subcellular_patterns",
    "whole_folder",
    "write_corpus",
    "write_text",
    "xenium_breast_window",
]

__version__: str

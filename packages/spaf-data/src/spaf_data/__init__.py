"""Spatial-omics runs in, slide tables and training corpora out."""

from importlib.metadata import version

from spaf_data.binning import bin_transcripts
from spaf_data.build import BuildOptions, SlideSource, build_corpus
from spaf_data.cell_graph import delaunay_pairs, nearest_neighbors, spatial_neighbors
from spaf_data.colocalization import colocalize, gene_pair_table, proximity_graph, robustness
from spaf_data.corpus import Block, BlockRef, Corpus, stream_blocks, write_corpus
from spaf_data.datasets import xenium_breast_window
from spaf_data.errors import InputError
from spaf_data.gene_statistics import GeneStatistics
from spaf_data.pairs import easy_negatives, hard_negatives, positive_pairs
from spaf_data.readers import ReadOptions, find_bundles, has_transcripts, read_counts, read_transcripts
from spaf_data.sheet import read_sheet
from spaf_data.simulate import simulate_bundle
from spaf_data.splits import split_regions, split_slides
from spaf_data.transcripts import Account, Transcripts

__all__ = [
    "Account",
    "Block",
    "BlockRef",
    "BuildOptions",
    "Corpus",
    "GeneStatistics",
    "InputError",
    "ReadOptions",
    "SlideSource",
    "Transcripts",
    "bin_transcripts",
    "build_corpus",
    "colocalize",
    "delaunay_pairs",
    "easy_negatives",
    "find_bundles",
    "gene_pair_table",
    "hard_negatives",
    "has_transcripts",
    "nearest_neighbors",
    "positive_pairs",
    "proximity_graph",
    "read_counts",
    "read_sheet",
    "read_transcripts",
    "robustness",
    "simulate_bundle",
    "spatial_neighbors",
    "split_regions",
    "split_slides",
    "stream_blocks",
    "write_corpus",
    "xenium_breast_window",
]

__version__ = version("spaf-data")

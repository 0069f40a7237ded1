"""Metrics beside their baselines, with intervals over tissue."""

from spaf_analysis.metrics.baselines import LogisticPairs, PcaEmbedding, cosine, log_normalize, pca_embedding
from spaf_analysis.metrics.bootstrap import Interval, Tiles, pair_weights, percentile_interval, spatial_tiles
from spaf_analysis.metrics.cell_pairs import CellPairEvaluation, PairScore, evaluate_cell_pairs, verdict
from spaf_analysis.metrics.discrimination import Discrimination, discrimination
from spaf_analysis.metrics.pairs import NEGATIVES, RADII, MatchedPairs, matched_pairs

__all__ = [
    "NEGATIVES",
    "RADII",
    "CellPairEvaluation",
    "Discrimination",
    "Interval",
    "LogisticPairs",
    "MatchedPairs",
    "PairScore",
    "PcaEmbedding",
    "Tiles",
    "cosine",
    "discrimination",
    "evaluate_cell_pairs",
    "log_normalize",
    "matched_pairs",
    "pair_weights",
    "pca_embedding",
    "percentile_interval",
    "spatial_tiles",
    "verdict",
]

"""Metrics beside their baselines, with intervals over tissue."""

from spaf_train.evaluation.baselines import LogisticPairs, PcaEmbedding, cosine, log_normalize, pca_embedding
from spaf_train.evaluation.bootstrap import Interval, Tiles, pair_weights, percentile_interval, spatial_tiles
from spaf_train.evaluation.cell_pairs import CellPairEvaluation, PairScore, evaluate_cell_pairs, verdict
from spaf_train.evaluation.discrimination import Discrimination, discrimination
from spaf_train.evaluation.pairs import NEGATIVES, RADII, MatchedPairs, matched_pairs

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

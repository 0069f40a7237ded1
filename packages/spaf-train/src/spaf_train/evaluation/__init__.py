"""Metrics beside their baselines, with intervals over tissue, and the evaluation of a model."""

from spaf_train.evaluation.baselines import (
    LogisticPairs,
    PcaEmbedding,
    cosine,
    log_normalize,
    pca_embedding,
    pearson_embedding,
)
from spaf_train.evaluation.bootstrap import (
    ENOUGH_TILES,
    Interval,
    Tiles,
    pair_weights,
    percentile_interval,
    spatial_tiles,
    tile_draws,
    verdict,
)
from spaf_train.evaluation.calibrated_cosine import CalibratedCosine
from spaf_train.evaluation.calibration import calibration_error, operating_point, reliability_table
from spaf_train.evaluation.cell_pairs import CellPairEvaluation, PairScore, evaluate_cell_pairs
from spaf_train.evaluation.cells import CorpusCells, ReadCells, read_cells, read_tissue, with_counts
from spaf_train.evaluation.classification import classification_scores, evaluate_predictions, prediction_differences
from spaf_train.evaluation.discrimination import Discrimination, discrimination
from spaf_train.evaluation.evaluate import Evaluation, evaluate
from spaf_train.evaluation.gene_pairs import evaluate_gene_pairs, pair_rates, score_gene_pairs
from spaf_train.evaluation.judging import (
    BASELINES,
    EMBEDDING,
    FURTHER_BASELINES,
    LOGISTIC,
    MODEL,
    NETWORK,
    PCA,
    PEARSON,
    RANDOM,
    cells_in_pairs,
    centred_cosine,
    judge_cell_pairs,
    judged_pairs,
)
from spaf_train.evaluation.log_counts import MAX_GENES, log_scaled, most_variable, row_sums
from spaf_train.evaluation.masked_genes import evaluate_masked_genes, unigram_probabilities
from spaf_train.evaluation.options import EvaluationOptions
from spaf_train.evaluation.pair_models import PairHeadEvaluation, evaluate_pair_models
from spaf_train.evaluation.pair_network import PairNetwork
from spaf_train.evaluation.pairs import NEGATIVES, RADII, MatchedPairs, can_be_judged, matched_pairs, radii_of
from spaf_train.evaluation.placed_cells import PlacedCells, drawn_tissue
from spaf_train.evaluation.probing import Block, Probe, ProbeSettings, choose_probe, fit_probe, inner_folds, macro_f1
from spaf_train.evaluation.random_encoder import random_twin
from spaf_train.evaluation.slide_baselines import NEIGHBOURS, OWN_PCA, TOWER, Z_PCA
from spaf_train.evaluation.tables import evaluation_tables

__all__ = [
    "BASELINES",
    "EMBEDDING",
    "ENOUGH_TILES",
    "FURTHER_BASELINES",
    "LOGISTIC",
    "MAX_GENES",
    "MODEL",
    "NEGATIVES",
    "NEIGHBOURS",
    "NETWORK",
    "OWN_PCA",
    "PCA",
    "PEARSON",
    "RADII",
    "RANDOM",
    "TOWER",
    "Z_PCA",
    "Block",
    "CalibratedCosine",
    "CellPairEvaluation",
    "CorpusCells",
    "Discrimination",
    "Evaluation",
    "EvaluationOptions",
    "Interval",
    "LogisticPairs",
    "MatchedPairs",
    "PairHeadEvaluation",
    "PairNetwork",
    "PairScore",
    "PcaEmbedding",
    "PlacedCells",
    "Probe",
    "ProbeSettings",
    "ReadCells",
    "Tiles",
    "calibration_error",
    "can_be_judged",
    "cells_in_pairs",
    "centred_cosine",
    "choose_probe",
    "classification_scores",
    "cosine",
    "discrimination",
    "drawn_tissue",
    "evaluate",
    "evaluate_cell_pairs",
    "evaluate_gene_pairs",
    "evaluate_masked_genes",
    "evaluate_pair_models",
    "evaluate_predictions",
    "evaluation_tables",
    "fit_probe",
    "inner_folds",
    "judge_cell_pairs",
    "judged_pairs",
    "log_normalize",
    "log_scaled",
    "macro_f1",
    "matched_pairs",
    "most_variable",
    "operating_point",
    "pair_rates",
    "pair_weights",
    "pca_embedding",
    "pearson_embedding",
    "percentile_interval",
    "prediction_differences",
    "radii_of",
    "random_twin",
    "read_cells",
    "read_tissue",
    "reliability_table",
    "row_sums",
    "score_gene_pairs",
    "spatial_tiles",
    "tile_draws",
    "unigram_probabilities",
    "verdict",
    "with_counts",
]

"""Ligands and receptors beside each other in space: within type and tile, and beside expression-matched gene pairs."""

from .compute import PairTests, feature_values, judge_pairs, matched_genes, p_among
from .moments import Moments, spatial_moments
from .overlap import overlap_of_calls
from .resource import Coverage, Resource, cover, read_resource
from .scores import ligand_receptor_scores
from .tool import ligrec
from .types import divided, ligrec_types

__all__ = [
    "Coverage",
    "Moments",
    "PairTests",
    "Resource",
    "cover",
    "divided",
    "feature_values",
    "judge_pairs",
    "ligand_receptor_scores",
    "ligrec",
    "ligrec_types",
    "matched_genes",
    "overlap_of_calls",
    "p_among",
    "read_resource",
    "spatial_moments",
]

"""What genes do to a model's score of two cells, alone and together, in near pairs of cells against far ones."""

from .choice import PairChoice
from .compute import GenePairSet, Perturbed, collect, expression_controls, leading, seen_gene_pairs
from .neighbours import perturb_neighbours
from .pairs import CellPairs, matched_pairs
from .permutation import NearFarTest, compare
from .tool import perturb

__all__ = [
    "CellPairs",
    "GenePairSet",
    "NearFarTest",
    "PairChoice",
    "Perturbed",
    "collect",
    "compare",
    "expression_controls",
    "leading",
    "matched_pairs",
    "perturb",
    "perturb_neighbours",
    "seen_gene_pairs",
]

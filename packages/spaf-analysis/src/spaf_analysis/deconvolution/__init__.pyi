"""Which cell types a spot is made of, by a reference of labelled cells."""

from .choice import accuracy, judge_methods
from .compute import Deconvolution, deconvolve_counts
from .methods import METHODS
from .others import take_proportions
from .signatures import Signatures, signatures
from .spots import MadeSpots, spots_of_cells, spots_of_tissue
from .tool import deconvolve, proportions_of

__all__ = [
    "METHODS",
    "Deconvolution",
    "MadeSpots",
    "Signatures",
    "accuracy",
    "deconvolve",
    "deconvolve_counts",
    "judge_methods",
    "proportions_of",
    "signatures",
    "spots_of_cells",
    "spots_of_tissue",
    "take_proportions",
]

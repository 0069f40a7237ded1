"""Attention from gene to gene, within cells and between those of a pair, and what its controls leave of it."""

from .compute import GeneWeights, against_shuffled, explained, residual
from .tool import attention

__all__ = ["GeneWeights", "against_shuffled", "attention", "explained", "residual"]

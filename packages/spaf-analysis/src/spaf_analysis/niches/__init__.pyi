"""Niches: what surrounds a cell, the domains that follow from it, and how they differ between conditions."""

from .comparison import niche_differences
from .domains import Domains, find_domains
from .judging import agreement, judge_domains
from .state import niche_state
from .tool import judge_niches, niches

__all__ = [
    "Domains",
    "agreement",
    "find_domains",
    "judge_domains",
    "judge_niches",
    "niche_differences",
    "niche_state",
    "niches",
]

"""Where in the cell the transcripts of each gene lie, against permuted labels."""

from .baselines import location_baseline
from .compute import FDR, leading_patterns, pattern_counts
from .tool import patterns, stored_patterns

__all__ = ["FDR", "leading_patterns", "location_baseline", "pattern_counts", "patterns", "stored_patterns"]

"""Where in the cell the transcripts of each gene lie, against labels of genes permuted within cells."""

from spaf_data.patterns.api import PATTERNS, SubcellularPatterns, check_patterns, choose_patterns, subcellular_patterns
from spaf_data.patterns.outlines import Outlines, Rings, read_outlines
from spaf_data.patterns.summaries import location_summary

__all__ = [
    "PATTERNS",
    "Outlines",
    "Rings",
    "SubcellularPatterns",
    "check_patterns",
    "choose_patterns",
    "location_summary",
    "read_outlines",
    "subcellular_patterns",
]

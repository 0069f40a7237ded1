"""Which cell types lie around which: against the exact expectation of each image, with donors as units."""

from .compute import TypeCounts, count_types_around, l_statistic, of_donors
from .tool import type_pairs

__all__ = ["TypeCounts", "count_types_around", "l_statistic", "of_donors", "type_pairs"]

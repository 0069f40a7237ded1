"""Readers of runs: one module a platform.

Runs with transcripts become `spaf_data.Transcripts`, runs with counts only the AnnData of a slide.
"""

from spaf_data.readers.api import PLATFORMS, find_bundles, has_transcripts, read_counts, read_transcripts
from spaf_data.readers.options import ReadOptions

__all__ = ["PLATFORMS", "ReadOptions", "find_bundles", "has_transcripts", "read_counts", "read_transcripts"]

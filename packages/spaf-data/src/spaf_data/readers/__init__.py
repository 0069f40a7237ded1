"""Readers of runs: one module a platform.

Runs with transcripts become `spaf_data.Transcripts`, runs with counts only the AnnData of a slide.
"""

from spaf_data.readers.api import find_bundles, has_transcripts, read_counts, read_transcripts

__all__ = ["find_bundles", "has_transcripts", "read_counts", "read_transcripts"]

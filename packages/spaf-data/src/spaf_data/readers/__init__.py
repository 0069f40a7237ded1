"""Readers of runs: one module a platform, with one class (`_platform.Platform`) that `options.READERS` names.

Runs with transcripts become `spaf_data.Transcripts`, runs with counts only the AnnData of a slide.
"""

from spaf_data.readers.api import (
    find_bundles,
    genes_known_before,
    has_transcripts,
    knows_unit,
    read_counts,
    read_transcripts,
    slide_name,
    slides_inside,
)

__all__ = [
    "find_bundles",
    "genes_known_before",
    "has_transcripts",
    "knows_unit",
    "read_counts",
    "read_transcripts",
    "slide_name",
    "slides_inside",
]

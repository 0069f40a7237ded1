"""Readers of runs: one module a platform.

Runs with transcripts become `spaf_data.Transcripts`, runs with counts only the AnnData of a slide.
"""

from spaf_data.readers.api import (
    FILES_OF_A_FOLDER,
    find_bundles,
    genes_known_before,
    has_transcripts,
    read_counts,
    read_transcripts,
    slides_inside,
)

__all__ = [
    "FILES_OF_A_FOLDER",
    "find_bundles",
    "genes_known_before",
    "has_transcripts",
    "read_counts",
    "read_transcripts",
    "slides_inside",
]

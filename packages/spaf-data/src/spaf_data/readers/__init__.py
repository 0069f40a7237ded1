"""Readers of instrument folders: one module a platform, all returning `spaf_data.Transcripts`."""

from spaf_data.readers.api import PLATFORMS, find_bundles, read_transcripts

__all__ = ["PLATFORMS", "find_bundles", "read_transcripts"]

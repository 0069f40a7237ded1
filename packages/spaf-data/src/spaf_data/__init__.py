"""Spatial-omics runs in, slide tables and training corpora out."""

from importlib.metadata import version

__version__ = version("spaf-data")

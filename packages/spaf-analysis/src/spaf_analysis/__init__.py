"""Integration, annotation, co-localisation, metrics with baselines and reports on spatial embeddings."""

from importlib.metadata import version

__version__ = version("spaf-analysis")

"""Spatial single-cell foundation models: architecture, model directories and inference."""

from importlib.metadata import version

__version__ = version("spaf-model")

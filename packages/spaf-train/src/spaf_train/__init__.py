"""Pre-training and fine-tuning of spatial single-cell foundation models."""

from importlib.metadata import version

__version__ = version("spaf-train")

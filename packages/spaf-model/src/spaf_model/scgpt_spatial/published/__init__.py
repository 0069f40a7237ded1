"""Import of checkpoints of the published scGPT-spatial and of its parent, scGPT."""

from spaf_model.scgpt_spatial.published.convert import convert_published_folder

__all__ = ["convert_published_folder"]

"""The family of scGPT-spatial models, where `spaf_model.family` looks for it."""

from spaf_model.scgpt_spatial.model import ScGPTSpatial

FAMILY = ScGPTSpatial

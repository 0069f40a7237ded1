"""The family of SpatialFormer models, where `spaf_model.family` looks for it."""

from spaf_model.spatialformer.model import SpatialFormer

FAMILY = SpatialFormer

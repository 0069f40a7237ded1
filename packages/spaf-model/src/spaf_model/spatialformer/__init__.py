"""The SpatialFormer architecture."""

from spaf_model.spatialformer.network import SpatialFormerNetwork

__all__ = ["SpatialFormerNetwork"]

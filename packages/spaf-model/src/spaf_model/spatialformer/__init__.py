"""The SpatialFormer network and its layers."""

from spaf_model.spatialformer.inference import InferenceEncoder
from spaf_model.spatialformer.network import SpatialFormerNetwork

__all__ = ["InferenceEncoder", "SpatialFormerNetwork"]

"""Import of checkpoints of the published SpatialFormer."""

from spaf_model.spatialformer.published.convert import AttentionVariant, convert_published

__all__ = ["AttentionVariant", "convert_published"]

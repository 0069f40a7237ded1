"""SpatialFormer: its configuration, tokeniser, network, importer of published checkpoints, and the model."""

from spaf_model.spatialformer.config import SpatialFormerConfig
from spaf_model.spatialformer.embedding import EmbeddingMethod, embed_cell_pairs, embed_cells
from spaf_model.spatialformer.gene_attention import average_gene_attention
from spaf_model.spatialformer.gene_pairs import CellGenePairs, colocalized_gene_pairs
from spaf_model.spatialformer.heads import CosinePairs, SeparatePairs
from spaf_model.spatialformer.inference import InferenceEncoder
from spaf_model.spatialformer.layers import ConvolutionMixer, MaskedBatchNorm, depthwise_convolution
from spaf_model.spatialformer.model import COLOCALIZATION_KEY, SpatialFormer
from spaf_model.spatialformer.network import SpatialFormerNetwork
from spaf_model.spatialformer.published import AttentionVariant, convert_published
from spaf_model.spatialformer.ranking import RankedCells, rank_genes
from spaf_model.spatialformer.tokeniser import (
    N_PREFIX,
    SequencedCells,
    SpatialFormerTokeniser,
    TokenBatch,
    sequence_lengths,
)
from spaf_model.spatialformer.values import (
    GeneValueKind,
    GeneValues,
    SlideStatistics,
    centred_by_slide,
    slide_statistics,
)

__all__ = [
    "COLOCALIZATION_KEY",
    "N_PREFIX",
    "AttentionVariant",
    "CellGenePairs",
    "ConvolutionMixer",
    "CosinePairs",
    "EmbeddingMethod",
    "GeneValueKind",
    "GeneValues",
    "InferenceEncoder",
    "MaskedBatchNorm",
    "RankedCells",
    "SeparatePairs",
    "SequencedCells",
    "SlideStatistics",
    "SpatialFormer",
    "SpatialFormerConfig",
    "SpatialFormerNetwork",
    "SpatialFormerTokeniser",
    "TokenBatch",
    "average_gene_attention",
    "centred_by_slide",
    "colocalized_gene_pairs",
    "convert_published",
    "depthwise_convolution",
    "embed_cell_pairs",
    "embed_cells",
    "rank_genes",
    "sequence_lengths",
    "slide_statistics",
]

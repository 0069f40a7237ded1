"""Spatial single-cell foundation models: architecture, model directories and inference."""

from importlib.metadata import version

from spaf_model import tl
from spaf_model.batching import token_budget_batches
from spaf_model.config import SpatialFormerConfig
from spaf_model.context import context_ids
from spaf_model.embedding import EmbeddingSettings, PairEmbeddings, embed_cell_pairs, embed_cells
from spaf_model.errors import InputError
from spaf_model.expression import match_genes
from spaf_model.gene_attention import GeneAttention, average_gene_attention
from spaf_model.gene_pairs import CellGenePairs, colocalized_gene_pairs
from spaf_model.kernels import KernelChoice, select_kernel
from spaf_model.model import SpatialFormer
from spaf_model.published import convert_published
from spaf_model.shipped import shipped_models
from spaf_model.spatialformer import SpatialFormerNetwork
from spaf_model.tissue import NetworkConfig, TissueConfig, TissueModel
from spaf_model.token_batch import TokenBatch
from spaf_model.tokens import RankedCells, check_counts, rank_genes
from spaf_model.vocabulary import CONTEXT_KINDS, GeneMatch, Vocabulary

__version__ = version("spaf-model")

__all__ = [
    "CONTEXT_KINDS",
    "CellGenePairs",
    "EmbeddingSettings",
    "GeneAttention",
    "GeneMatch",
    "InputError",
    "KernelChoice",
    "NetworkConfig",
    "PairEmbeddings",
    "RankedCells",
    "SpatialFormer",
    "SpatialFormerConfig",
    "SpatialFormerNetwork",
    "TissueConfig",
    "TissueModel",
    "TokenBatch",
    "Vocabulary",
    "average_gene_attention",
    "check_counts",
    "colocalized_gene_pairs",
    "context_ids",
    "convert_published",
    "embed_cell_pairs",
    "embed_cells",
    "match_genes",
    "rank_genes",
    "select_kernel",
    "shipped_models",
    "tl",
    "token_budget_batches",
]

"""Spatial single-cell foundation models: families of architectures, model directories and inference."""

from importlib.metadata import version

from spaf_model import tl
from spaf_model._files import replace_file
from spaf_model._h5ad import refuse_overwriting
from spaf_model.asking import (
    EmbedsPairs,
    NamesHiddenGenes,
    PerturbsPairs,
    PredictsColocalization,
    PredictsExpression,
    RanksGenePairs,
    ReadsWithoutGenes,
    ScoresPairs,
    ShowsAttention,
    asked,
)
from spaf_model.batching import token_budget_batches
from spaf_model.cell_source import CellSource
from spaf_model.context import context_ids
from spaf_model.counts import CellCounts, check_counts
from spaf_model.distributed import ends_at_once
from spaf_model.embedding import embed_tokenised, inference
from spaf_model.errors import InputError
from spaf_model.expression import match_genes
from spaf_model.family import (
    InContext,
    KnowsSlides,
    Network,
    ReadsPairs,
    StepStatistics,
    TokenisedCells,
    Tokeniser,
    TrainableBatch,
    families,
    family_of,
    register_family,
)
from spaf_model.fetching import fetch_model
from spaf_model.gene_names import GeneNames
from spaf_model.inputs import Cells, table_of
from spaf_model.kernels import KernelChoice, select_kernel
from spaf_model.loading import load_model
from spaf_model.model import Model
from spaf_model.niche import averaging_weights
from spaf_model.options import EmbeddingSettings, ReadingOptions
from spaf_model.outputs import check_key, check_output
from spaf_model.published_models import publish_model
from spaf_model.results import GeneAttention, GeneChange, HiddenGenes, PairEmbeddings, PerturbedPair
from spaf_model.scgpt_spatial import (
    HIDDEN_VALUE,
    PREFIX_VALUE,
    CellDecoder,
    CountOutput,
    Expert,
    ExpertMixture,
    NicheExpression,
    RoutingReport,
    ScGPTSpatial,
    ScGPTSpatialConfig,
    ScGPTSpatialNetwork,
    ScGPTSpatialTokeniser,
    SingleExpert,
    Surroundings,
    ValueBatch,
    ValuedCells,
    distance_weights,
    neighbourhood_weights,
    relative_distances,
    technology_names,
)
from spaf_model.scgpt_spatial.published import convert_published_folder
from spaf_model.shipped import model_path, shipped_models
from spaf_model.spatialformer import (
    CellGenePairs,
    ConvolutionMixer,
    CosinePairs,
    EmbeddingMethod,
    GeneValueKind,
    GeneValues,
    MaskedBatchNorm,
    RankedCells,
    SeparatePairs,
    SequencedCells,
    SlideStatistics,
    SpatialFormer,
    SpatialFormerConfig,
    SpatialFormerNetwork,
    TokenBatch,
    average_gene_attention,
    centred_by_slide,
    colocalized_gene_pairs,
    convert_published,
    embed_cell_pairs,
    embed_cells,
    rank_genes,
    sequence_lengths,
    slide_statistics,
)
from spaf_model.tissue import NetworkConfig, TissueConfig, TissueModel
from spaf_model.vocabulary import CONTEXT_KINDS, GeneMatch, Vocabulary

__version__ = version("spaf-model")

__all__ = [
    "CONTEXT_KINDS",
    "HIDDEN_VALUE",
    "PREFIX_VALUE",
    "CellCounts",
    "CellDecoder",
    "CellGenePairs",
    "CellSource",
    "Cells",
    "ConvolutionMixer",
    "CosinePairs",
    "CountOutput",
    "EmbeddingMethod",
    "EmbeddingSettings",
    "EmbedsPairs",
    "Expert",
    "ExpertMixture",
    "GeneAttention",
    "GeneChange",
    "GeneMatch",
    "GeneNames",
    "GeneValueKind",
    "GeneValues",
    "HiddenGenes",
    "InContext",
    "InputError",
    "KernelChoice",
    "KnowsSlides",
    "MaskedBatchNorm",
    "Model",
    "NamesHiddenGenes",
    "Network",
    "NetworkConfig",
    "NicheExpression",
    "PairEmbeddings",
    "PerturbedPair",
    "PerturbsPairs",
    "PredictsColocalization",
    "PredictsExpression",
    "RankedCells",
    "RanksGenePairs",
    "ReadingOptions",
    "ReadsPairs",
    "ReadsWithoutGenes",
    "RoutingReport",
    "ScGPTSpatial",
    "ScGPTSpatialConfig",
    "ScGPTSpatialNetwork",
    "ScGPTSpatialTokeniser",
    "ScoresPairs",
    "SeparatePairs",
    "SequencedCells",
    "ShowsAttention",
    "SingleExpert",
    "SlideStatistics",
    "SpatialFormer",
    "SpatialFormerConfig",
    "SpatialFormerNetwork",
    "StepStatistics",
    "Surroundings",
    "TissueConfig",
    "TissueModel",
    "TokenBatch",
    "TokenisedCells",
    "Tokeniser",
    "TrainableBatch",
    "ValueBatch",
    "ValuedCells",
    "Vocabulary",
    "asked",
    "average_gene_attention",
    "averaging_weights",
    "centred_by_slide",
    "check_counts",
    "check_key",
    "check_output",
    "colocalized_gene_pairs",
    "context_ids",
    "convert_published",
    "convert_published_folder",
    "distance_weights",
    "embed_cell_pairs",
    "embed_cells",
    "embed_tokenised",
    "ends_at_once",
    "families",
    "family_of",
    "fetch_model",
    "inference",
    "load_model",
    "match_genes",
    "model_path",
    "neighbourhood_weights",
    "publish_model",
    "rank_genes",
    "refuse_overwriting",
    "register_family",
    "relative_distances",
    "replace_file",
    "select_kernel",
    "sequence_lengths",
    "shipped_models",
    "slide_statistics",
    "table_of",
    "technology_names",
    "tl",
    "token_budget_batches",
]

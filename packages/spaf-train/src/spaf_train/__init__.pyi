"""Pre-training and fine-tuning of spatial single-cell foundation models."""

from .checkpoint import Checkpoints, load_checkpoint
from .config import PretrainConfig, presets, read_config
from .evaluation import Evaluation, EvaluationOptions, evaluate
from .finetuning import FinetuneConfig, FinetuneResult, finetune_labels, finetune_pairs, predict_labels
from .gene_embedding import GeneEmbeddingOptions, GeneEmbeddings, gene_embeddings, train_gene_embeddings
from .gene_table import GeneTableConfig
from .loader import Batch, BatchStream
from .loop import RunConfig, Trainer, TrainingDivergedError
from .metrics import MetricsLog, auroc
from .module import TrainingModule
from .objectives import ObjectivesConfig
from .optim import OptimizerConfig, learning_rate, make_optimizer
from .pretraining import PretrainResult, pretrain
from .samplers import SamplingConfig
from .tissue import TissueResult, TissueRunConfig, pretrain_tissue, read_tissue_config
from .validation import validate
from .vocabulary import VocabularyConfig, vocabulary_from_corpus

__all__ = [
    "Batch",
    "BatchStream",
    "Checkpoints",
    "Evaluation",
    "EvaluationOptions",
    "FinetuneConfig",
    "FinetuneResult",
    "GeneEmbeddingOptions",
    "GeneEmbeddings",
    "GeneTableConfig",
    "MetricsLog",
    "ObjectivesConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "PretrainResult",
    "RunConfig",
    "SamplingConfig",
    "TissueResult",
    "TissueRunConfig",
    "Trainer",
    "TrainingDivergedError",
    "TrainingModule",
    "VocabularyConfig",
    "auroc",
    "evaluate",
    "finetune_labels",
    "finetune_pairs",
    "gene_embeddings",
    "learning_rate",
    "load_checkpoint",
    "make_optimizer",
    "predict_labels",
    "presets",
    "pretrain",
    "pretrain_tissue",
    "read_config",
    "read_tissue_config",
    "train_gene_embeddings",
    "validate",
    "vocabulary_from_corpus",
]

__version__: str

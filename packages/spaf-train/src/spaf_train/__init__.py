"""Pre-training and fine-tuning of spatial single-cell foundation models."""

from importlib.metadata import version

from spaf_train.checkpoint import Checkpoints, load_checkpoint
from spaf_train.config import PretrainConfig, presets, read_config
from spaf_train.evaluation import Evaluation, EvaluationOptions, evaluate
from spaf_train.finetuning import FinetuneConfig, FinetuneResult, finetune_labels, finetune_pairs, predict_labels
from spaf_train.gene_embedding import GeneEmbeddingOptions, GeneEmbeddings, gene_embeddings, train_gene_embeddings
from spaf_train.gene_table import GeneTableConfig
from spaf_train.loader import Batch, BatchStream
from spaf_train.loop import RunConfig, Trainer, TrainingDivergedError
from spaf_train.metrics import MetricsLog, auroc
from spaf_train.module import TrainingModule
from spaf_train.objectives import ObjectivesConfig
from spaf_train.optim import OptimizerConfig, learning_rate, make_optimizer
from spaf_train.pretraining import PretrainResult, pretrain
from spaf_train.samplers import SamplingConfig
from spaf_train.validation import validate
from spaf_train.vocabulary import VocabularyConfig, vocabulary_from_corpus

__version__ = version("spaf-train")

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
    "read_config",
    "train_gene_embeddings",
    "validate",
    "vocabulary_from_corpus",
]

"""Pre-training and fine-tuning of spatial single-cell foundation models."""

from ._options import from_table
from .evaluation import Evaluation, EvaluationOptions, evaluate
from .finetuning import FinetuneConfig, FinetuneResult, finetune_labels, finetune_pairs, predict_labels, predict_pairs
from .gene_embedding import GeneEmbeddingOptions, GeneEmbeddings, gene_embeddings, train_gene_embeddings
from .objectives import Column, Objective, ObjectivesConfig, objective_columns
from .pretraining.config import PretrainConfig, presets, read_config
from .pretraining.gene_table import GeneTableConfig
from .pretraining.run import PretrainResult, pretrain
from .pretraining.tissue import TissueResult, TissueRunConfig, pretrain_tissue, read_tissue_config
from .pretraining.vocabulary import VocabularyConfig, vocabulary_from_corpus
from .stream.batch import Batch
from .stream.loader import BatchStream
from .stream.samplers import Sampler, SamplingConfig
from .trainer.checkpoint import Checkpoints, load_checkpoint
from .trainer.config import RunConfig
from .trainer.divergence import TrainingDivergedError
from .trainer.loop import Trainer
from .trainer.metrics import MetricsLog, auroc
from .trainer.module import TrainingModule
from .trainer.optim import OptimizerConfig, learning_rate, make_optimizer
from .trainer.validation import validate

__all__ = [
    "Batch",
    "BatchStream",
    "Checkpoints",
    "Column",
    "Evaluation",
    "EvaluationOptions",
    "FinetuneConfig",
    "FinetuneResult",
    "GeneEmbeddingOptions",
    "GeneEmbeddings",
    "GeneTableConfig",
    "MetricsLog",
    "Objective",
    "ObjectivesConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "PretrainResult",
    "RunConfig",
    "Sampler",
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
    "from_table",
    "gene_embeddings",
    "learning_rate",
    "load_checkpoint",
    "make_optimizer",
    "objective_columns",
    "predict_labels",
    "predict_pairs",
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

"""Fine-tuning: pairs of neighbours on other data, and labels of cells; fully, by adapters or by a probe."""

from spaf_train.finetuning.config import FinetuneConfig
from spaf_train.finetuning.label_card import LABEL_MEASURES
from spaf_train.finetuning.label_head import LabelHead, predict_labels
from spaf_train.finetuning.label_probe import comparable_pooling
from spaf_train.finetuning.labelled_cells import LabelledCells, labelled_cells
from spaf_train.finetuning.labels import finetune_labels
from spaf_train.finetuning.pair_prediction import predict_pairs
from spaf_train.finetuning.pairs import PAIR_MEASURES, finetune_pairs
from spaf_train.finetuning.result import FinetuneResult
from spaf_train.finetuning.training import Fit, fit_with_patience

__all__ = [
    "LABEL_MEASURES",
    "PAIR_MEASURES",
    "FinetuneConfig",
    "FinetuneResult",
    "Fit",
    "LabelHead",
    "LabelledCells",
    "comparable_pooling",
    "finetune_labels",
    "finetune_pairs",
    "fit_with_patience",
    "labelled_cells",
    "predict_labels",
    "predict_pairs",
]

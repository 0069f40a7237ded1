"""Objectives of training: what is hidden or asked, the loss, and how several losses become one.

Each module of this folder that defines an `Objective` adds it; nothing else names it.
"""

import importlib
import pkgutil

from spaf_train.objectives.base import OBJECTIVES, Column, Loss, Objective, ObjectiveConfig, Scores, Targets, Total

# isort: off
# In the order of the metrics.
from spaf_train.objectives.masked_genes import (
    MaskedGenes,
    MaskedGenesConfig,
    mask_genes,
    masked_gene_logits,
    masked_genes_loss,
)
from spaf_train.objectives.colocalization import (
    ColocalizationConfig,
    ColocalizedGenes,
    colocalization_logits,
    colocalized_genes,
    focal_loss,
)
from spaf_train.objectives.pairs import PairLabels, PairsConfig, pairs_loss
from spaf_train.objectives.contrast import ContrastConfig
# isort: on

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

from spaf_train.objectives.config import GivenObjectives, ObjectivesConfig, ObjectiveSet, objective_columns  # noqa: E402  # knows them all
from spaf_train.objectives.weighting import ObjectiveWeighting, WeightingConfig  # noqa: E402

__all__ = [
    "OBJECTIVES",
    "ColocalizationConfig",
    "ColocalizedGenes",
    "Column",
    "ContrastConfig",
    "GivenObjectives",
    "Loss",
    "MaskedGenes",
    "MaskedGenesConfig",
    "Objective",
    "ObjectiveConfig",
    "ObjectiveSet",
    "ObjectiveWeighting",
    "ObjectivesConfig",
    "PairLabels",
    "PairsConfig",
    "Scores",
    "Targets",
    "Total",
    "WeightingConfig",
    "colocalization_logits",
    "colocalized_genes",
    "focal_loss",
    "mask_genes",
    "masked_gene_logits",
    "masked_genes_loss",
    "objective_columns",
    "pairs_loss",
]

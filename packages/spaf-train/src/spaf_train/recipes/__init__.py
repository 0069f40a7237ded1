"""Ways to train a model that are not the pre-training loop."""

from spaf_train.recipes.config import ContrastConfig, ContrastRunConfig, contrast_presets, read_contrast_config
from spaf_train.recipes.contrast import ContrastResult, train_contrast
from spaf_train.recipes.neighbours import NeighboursConfig
from spaf_train.recipes.patches import PatchConfig
from spaf_train.recipes.towers import TowersConfig

__all__ = [
    "ContrastConfig",
    "ContrastResult",
    "ContrastRunConfig",
    "NeighboursConfig",
    "PatchConfig",
    "TowersConfig",
    "contrast_presets",
    "read_contrast_config",
    "train_contrast",
]

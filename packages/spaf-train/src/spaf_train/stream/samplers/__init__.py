"""Samplers: which cells make a batch, as functions of seed, epoch and place.

Each module of this folder that defines a `Sampler` adds it; nothing else names it.
"""

import importlib
import pkgutil

from spaf_train.stream.samplers.base import SAMPLERS, Sampler, block_order, shuffled_batches
from spaf_train.stream.samplers.config import SamplingConfig

# isort: off
# In the order of messages.
from spaf_train.stream.samplers.pairs import draw_pairs
from spaf_train.stream.samplers.cells import single_cells
from spaf_train.stream.samplers.patches import PatchConfig
# isort: on

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "SAMPLERS",
    "PatchConfig",
    "Sampler",
    "SamplingConfig",
    "block_order",
    "draw_pairs",
    "shuffled_batches",
    "single_cells",
]

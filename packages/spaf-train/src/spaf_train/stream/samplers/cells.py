"""Single cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaf_train.stream.samplers.base import Sampler, shuffled_batches
from spaf_train.stream.window import Inputs, Window

if TYPE_CHECKING:
    from spaf_data import Block


class CellSampler(Sampler):
    """Every cell once an epoch, those of some blocks shuffled."""

    name = "cells"
    within_budget = True

    def batches(self, window: Window) -> list[Inputs]:
        """Return the cells that the blocks own, in batches of similar length."""
        return shuffled_batches(single_cells(window.blocks, window.offsets), window, self.sampling)


def single_cells(blocks: list[Block], offsets: NDArray[np.int64]) -> Inputs:
    """Return every cell that the blocks own, once."""
    pieces = [np.arange(block.n_owned) + offset for block, offset in zip(blocks, offsets, strict=True)]
    return Inputs.of_cells(np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64))

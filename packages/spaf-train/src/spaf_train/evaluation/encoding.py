"""The hidden states of cells, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray

from spaf_model import (
    RankedCells,
    SpatialFormer,
    SpatialFormerNetwork,
    TokenBatch,
    sequence_lengths,
    token_budget_batches,
)

if TYPE_CHECKING:
    import numpy as np


@contextmanager
def inference(network: SpatialFormerNetwork) -> Iterator[torch.device]:
    """Put a network into evaluation mode without gradients, and back; yield its device."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield next(network.parameters()).device
    finally:
        network.train(was_training)


def encoded_cells(
    model: SpatialFormer, ranked: RankedCells, context: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], TokenBatch, torch.Tensor]]:
    """Yield cells, their tokens on the CPU and their hidden states (B, L, D); every cell in one batch.

    To be read inside `inference`.
    """
    device = next(model.network.parameters()).device
    for cells in token_budget_batches(sequence_lengths(ranked.n_genes), model.network.token_budget(device)):
        tokens = TokenBatch.from_cells(ranked, context, cells, model.vocabulary)
        yield cells, tokens, model.network.encode(tokens.to(device))

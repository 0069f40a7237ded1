"""The hidden states of cells, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model import RankedCells, SpatialFormer, SpatialFormerNetwork, TokenBatch, token_budget_batches
from spaf_model.embedding import default_token_budget
from spaf_model.token_batch import N_PREFIX


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
    lengths = ranked.n_genes + N_PREFIX + 1
    for cells in token_budget_batches(lengths, default_token_budget(model.config, device)):
        tokens = TokenBatch.from_cells(ranked, context, cells, model.vocabulary)
        yield cells, tokens, model.network.encode(tokens.to(device))

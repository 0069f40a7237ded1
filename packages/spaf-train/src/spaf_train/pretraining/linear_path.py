"""The linear path of a new model: principal components of the gene values of the training cells, fitted once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model import SequencedCells

if TYPE_CHECKING:
    from spaf_model import Model
    from spaf_train.stream.loader import BatchStream
    from spaf_train.trainer.distributed import Ranks

_MOST_VALUES = 1 << 26  # cells x genes that components are fitted on: 256 MB in float32


def set_linear_path(model: Model[Any, Any], train: BatchStream, group: Ranks) -> None:
    """Give the linear path of a new model its loadings; nothing is done for a model without one.

    The first process fits them on the training cells, or on as many drawn from these as make 67 million values, and
    scales them so that the components of a cell have the mean squared norm that a layer norm gives the other states.

    Every process calls this.
    """
    path = getattr(model.network, "linear_path", None)
    if path is None:
        return
    loadings = None
    if group.is_main:
        tokenised = train.all_cells().tokenised
        assert isinstance(tokenised, SequencedCells)
        values = tokenised.ranked.values
        assert values is not None, "a linear path needs values: checked by the configuration"
        genes = model.vocabulary.gene_token_ids
        n_cells = values.slides.size
        cells = np.arange(n_cells)
        if n_cells * genes.size > _MOST_VALUES:
            most = max(_MOST_VALUES // genes.size, 1)
            cells = np.sort(np.random.default_rng(train.seed).choice(n_cells, most, replace=False))
        rows = values.rows(cells)[:, genes]
        found = principal_loadings(rows, path.loadings.shape[1], width=model.config.width)
        loadings = np.zeros((model.vocabulary.n_tokens, path.loadings.shape[1]), dtype=np.float32)
        loadings[genes, : found.shape[1]] = found
    loadings = group.gather(loadings)[0]
    with torch.no_grad():
        path.loadings.copy_(torch.from_numpy(loadings))


def principal_loadings(values: NDArray[np.float32], rank: int, *, width: int) -> NDArray[np.float32]:
    """Return loadings (n_genes, at most rank) of the leading components of values (n_cells, n_genes) around 0.

    The components of the cells have a mean squared norm of `width`. The largest absolute loading of each is positive.
    """
    n_cells, n_genes = values.shape
    rank = min(rank, n_cells, n_genes)
    if n_genes <= n_cells:
        variances, vectors = np.linalg.eigh((values.T @ values).astype(np.float64))
        vectors, squares = vectors[:, ::-1][:, :rank], variances[::-1][:rank]
    else:
        variances, of_cells = np.linalg.eigh((values @ values.T).astype(np.float64))
        squares = np.maximum(variances[::-1][:rank], 1e-12)
        vectors = values.T @ (of_cells[:, ::-1][:, :rank] / np.sqrt(squares))
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(rank)]
    vectors = vectors * np.where(largest < 0, -1.0, 1.0)
    scale = np.sqrt(width * n_cells / max(float(squares.sum()), 1e-12))
    loadings: NDArray[np.float32] = (vectors * scale).astype(np.float32)
    return loadings

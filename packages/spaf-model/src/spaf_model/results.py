"""What models of any family return when they are asked for more than embeddings."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_model.errors import InputError

AttentionDirection = Literal["left_to_right", "right_to_left", "within_left", "within_right"]
DIRECTIONS: tuple[AttentionDirection, ...] = get_args(AttentionDirection)


GeneChange = Literal["delete", "mask", "fold"]


@dataclasses.dataclass(frozen=True)
class PairEmbeddings:
    """What a model says of pairs of cells; row i belongs to pair i, NaN where a cell has no gene of the vocabulary."""

    embeddings: NDArray[np.float32]  # (n_pairs, D), mean over both orders or both cells
    probabilities: NDArray[np.float32]  # (n_pairs,), that the two cells are neighbours; symmetric


@dataclasses.dataclass(frozen=True)
class HiddenGenes:
    """What a model says of genes that were hidden from it, along the entries of `CellCounts`."""

    read: NDArray[np.bool_]  # (n_entries,), entries that the model reads at all: long cells may be cut
    named: NDArray[np.int64]  # (n_entries,), the likeliest token where one was hidden, -1 elsewhere
    log_probability: NDArray[np.float64]  # (n_entries,), nat, of the gene that is there; NaN where none was hidden


@dataclasses.dataclass(frozen=True)
class PerturbedPair:
    """How the score of one pair of cells moves with genes of either: the logit that the two are neighbours."""

    score: float  # of the two cells as they are; NaN where one has no gene of the model
    genes_left: NDArray[np.int64]  # (A,), columns of ``adata.var``: genes of the left cell that the model reads
    genes_right: NDArray[np.int64]  # (B,), those of the right cell
    delta_left: NDArray[np.float64]  # (A,), the score with a gene of the left cell changed, less the score
    delta_right: NDArray[np.float64]  # (B,), of the right cell
    # (A, B): with both genes changed, less the score and less both single changes; NaN where it was not asked for.
    interaction: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class GeneAttention:
    """Mean attention from gene to gene, in four directions.

    A direction names where the asking gene (the query, row) and the gene it looks at (the key, column) are:
    ``"left_to_right"`` is how much genes of the left cells attend to genes of the right cells.
    """

    genes: list[str]  # names of rows and columns, in the order of ``adata.var``
    weights: dict[AttentionDirection, sparse.csr_array]  # (n_genes, n_genes), mean over the pairs that have both genes
    n_pairs: dict[AttentionDirection, sparse.csr_array]  # (n_genes, n_genes), how many pairs of cells have both genes
    n_cell_pairs: int  # pairs of cells that were read
    n_empty: int  # pairs left out, because a cell has no gene of the model

    def table(self, direction: AttentionDirection, *, min_pairs: int = 1) -> pd.DataFrame:
        """Return one direction as a table, strongest first: ``query``, ``key``, ``weight`` and ``n_pairs``.

        Parameters
        ----------
        direction
            One of ``left_to_right``, ``right_to_left``, ``within_left``, ``within_right``.
        min_pairs
            Leave out what fewer pairs of cells have; a mean over few says little.

        Raises
        ------
        InputError
            If there is no such direction.
        """
        if direction not in DIRECTIONS:
            raise InputError(f"direction must be one of {', '.join(DIRECTIONS)}, not {direction!r}.")
        weights, n_pairs = self.weights[direction], self.n_pairs[direction]
        query = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
        names = np.array(self.genes, dtype=object)
        table = pd.DataFrame(
            {
                "query": names[query],
                "key": names[weights.indices],
                "weight": weights.data,
                "n_pairs": n_pairs.data,
            }
        )
        table = table[table["n_pairs"] >= min_pairs]
        return table.sort_values("weight", ascending=False, kind="stable", ignore_index=True)

"""What telling neighbours has to beat without training: the cosine of principal components of the training cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, sparse
from torch import Tensor
from torch.nn import functional

from spaf_train.objectives.base import Objective, ObjectiveConfig
from spaf_train.stream.window import slide_counts

if TYPE_CHECKING:
    from spaf_model import CellCounts
    from spaf_train.stream.loader import BatchStream
    from spaf_train.trainer.signals import StopRequest

NAME = "PCA cosine"
_COMPONENTS = 30
_CELLS = 10_000  # of the training split that components are fitted on
_GENES = 2_000  # with more, those that vary most


@dataclasses.dataclass(frozen=True)
class PairBaseline:
    """Principal components of log1p of counts per 10,000.

    `tokens` (n_genes,) says which genes, `components` (n_genes, n_components) and `centre` (n_components,) are float32.
    """

    tokens: Tensor
    components: Tensor
    centre: Tensor

    @classmethod
    def fit(cls, train: BatchStream) -> Self | None:
        """Fit on about 10,000 cells of the split of a stream; None where there are fewer than three with a gene."""
        from spaf_train.evaluation.baselines import log_normalize  # which loads scikit-learn

        counts = sparse.vstack(_counts_of(train), format="csr")
        expression = log_normalize(counts[np.diff(counts.indptr) > 0])
        if expression.shape[0] < 3:
            return None
        mean = np.asarray(expression.mean(axis=0)).ravel()
        variance = np.asarray(expression.multiply(expression).mean(axis=0)).ravel() - mean**2
        tokens = np.sort(np.argsort(-variance, kind="stable")[:_GENES])
        tokens = tokens[variance[tokens] > 0.0]
        chosen = expression[:, tokens].toarray() - mean[tokens]
        n = min(_COMPONENTS, tokens.size, expression.shape[0] - 1)
        if not n:
            return None
        # Eigenvectors of the gene covariance: exact, without a random start, of a size that cells do not change.
        _, components = linalg.eigh(chosen.T @ chosen, subset_by_index=[tokens.size - n, tokens.size - 1])
        centre = mean[tokens] @ components
        return cls(
            torch.from_numpy(tokens),
            torch.from_numpy(np.ascontiguousarray(components, dtype=np.float32)),
            torch.from_numpy(centre.astype(np.float32)),
        )

    @classmethod
    def prepared(cls, train: BatchStream, validation: BatchStream | None) -> dict[str, Any]:
        """Return what `of` needs, in plain tensors; nothing where nothing is validated."""
        found = None if validation is None else cls.fit(train)
        return {} if found is None else {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}

    @classmethod
    def of(cls, prepared: Mapping[str, Any], split: str) -> Self | None:
        """Return what `prepared` gave, for the targets of a split; training is asked for no baseline."""
        return cls(**prepared) if prepared and split == "validation" else None

    def states(self, cells: CellCounts) -> Tensor:
        """Return cells in these components, seen from the mean of the training cells, (n_cells, n_components)."""
        from spaf_train.evaluation.baselines import log_normalize

        expression = log_normalize(cells.matrix())[:, self.tokens.numpy()].toarray()
        return torch.from_numpy(expression.astype(np.float32)) @ self.components - self.centre


class BesideComponents(Objective):
    """An objective of pairs of cells that stands beside the cosine of these components in validation."""

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__(config)
        self._baseline: PairBaseline | None = None

    def prepare(self, train: BatchStream, validation: BatchStream | None, stop: StopRequest) -> dict[str, Any]:
        """Fit the baseline on training cells."""
        return PairBaseline.prepared(train, validation)

    def take(self, prepared: Mapping[str, Any], split: str) -> None:
        """Take over the baseline, for validation."""
        self._baseline = PairBaseline.of(prepared, split)


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of each row of one with the same row of the other, (n,)."""
    return functional.cosine_similarity(left, right, dim=1)


def _counts_of(train: BatchStream) -> list[sparse.csr_matrix]:
    """Return counts of whole blocks, spread over the split, as cells x tokens."""
    of_no_matter: NDArray[np.bool_] = np.zeros(train.vocabulary.n_tokens, dtype=bool)  # what is measured
    return [
        sparse.csr_matrix(slide_counts([block], train.token_of_gene, of_no_matter).matrix())
        for block in train.blocks(_CELLS)
    ]

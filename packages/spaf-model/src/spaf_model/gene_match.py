"""How the genes of a data set were found in a vocabulary."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class GeneMatch:
    """Where the genes of a data set are in a vocabulary.

    ``token_ids`` holds the token of each gene of the input, -1 where there is none. Genes of the input that are one
    gene of the model by the rule of `Vocabulary.look_up`, such as two symbols of one Ensembl id, share its token:
    ``joined`` names those behind the first, and their counts are added. A gene that stands in the input twice, with
    name and id, is in ``duplicated`` and has -1.
    """

    token_ids: NDArray[np.int64]  # (n_genes of the input,)
    matched: list[str]
    unmatched: list[str]
    duplicated: list[str]
    n_known: int  # genes of the vocabulary
    joined: list[str] = dataclasses.field(default_factory=list)

    @property
    def fraction(self) -> float:
        """Matched genes as a share of the genes of the input."""
        return (len(self.matched) + len(self.joined)) / max(self.token_ids.size, 1)

    @property
    def model_fraction(self) -> float:
        """Matched genes as a share of the genes of the model."""
        return len(self.matched) / max(self.n_known, 1)

"""What a cell of each type expresses, and which types cannot be told apart by it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.errors import InputError

# Each type also holds a tenth of a cell of the average profile, so that a gene that no cell of a type happened to show
# is rare in it and not impossible.
_AVERAGE_CELLS = 0.1
ALIKE = 0.95  # correlation of square roots from which two types are called alike
_FEWEST_GENES = 10


@dataclass(frozen=True)
class Signatures:
    """Mean counts of a cell of each type.

    Attributes
    ----------
    types
        Names, sorted.
    means
        (n_types, n_genes), counts a cell.
    n_cells
        (n_types,), cells behind each.
    """

    types: list[str]
    means: NDArray[np.float64]
    n_cells: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Counts of a cell of each type over all genes, (n_types,)."""
        sizes: NDArray[np.float64] = self.means.sum(axis=1)
        return sizes

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each gene in the counts of a type, (n_types, n_genes)."""
        shares: NDArray[np.float64] = self.means / self.sizes[:, None]
        return shares

    def alike(self, limit: float = ALIKE) -> list[tuple[str, str, float]]:
        """Return pairs of types with their correlation where that of square roots of shares is at least a limit.

        Their sum is known well and how it is divided hardly.
        """
        if len(self.types) < 2:
            return []
        correlation = np.corrcoef(np.sqrt(self.shares))
        return [
            (self.types[a], self.types[b], float(correlation[a, b]))
            for a, b in combinations(range(len(self.types)), 2)
            if correlation[a, b] >= limit
        ]


def signatures(counts: sparse.csr_matrix, labels: NDArray[np.str_]) -> Signatures:
    """Average the cells of each type.

    Parameters
    ----------
    counts
        Cells x genes.
    labels
        (n_cells,), the type of each cell; "" where it has none.

    Raises
    ------
    InputError
        If fewer than 2 types are labelled, fewer than 10 genes are left, or a type has no counts of these genes.
    """
    named = np.flatnonzero(labels != "")
    types, code = np.unique(labels[named], return_inverse=True)
    if types.size < 2:
        found = f"only {str(types[0])!r}" if types.size else "none"
        raise InputError(f"the reference needs cells of at least 2 types; its labels name {found}.")
    if counts.shape[1] < _FEWEST_GENES:
        raise InputError(
            f"reference and spots share {counts.shape[1]} genes; at least {_FEWEST_GENES} are needed: are both of one "
            "species?"
        )
    of_type = sparse.csr_matrix((np.ones(named.size), (code, named)), shape=(types.size, counts.shape[0]))
    sums = np.asarray((of_type @ counts).toarray(), dtype=np.float64)
    empty = sums.sum(axis=1) == 0.0
    if empty.any():
        raise InputError(f"no cell of the type {str(types[empty][0])!r} has a count of a gene that the spots measure.")
    n_cells = np.bincount(code, minlength=types.size)
    typical = (sums / n_cells[:, None]).mean(axis=0)
    means = (sums + _AVERAGE_CELLS * typical) / (n_cells + _AVERAGE_CELLS)[:, None]
    return Signatures(types.tolist(), means + 1e-9 * means.max(), n_cells.astype(np.int64))

"""Which genes of a corpus a slide measures, as runs of codes: a slide has most of its genes behind each other."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def runs_of(codes: npt.NDArray[np.integer]) -> list[list[int]]:
    """Return the runs of the codes of genes, each as its first code and the code behind its last.

    Examples
    --------
    >>> runs_of(np.array([4, 0, 1, 2, 1]))
    [[0, 3], [4, 5]]
    """
    codes = np.unique(codes).astype(np.int64)
    breaks = np.flatnonzero(np.diff(codes) > 1) + 1
    return [[int(run[0]), int(run[-1]) + 1] for run in np.split(codes, breaks) if run.size]


def genes_of(runs: Sequence[Sequence[int]], n_genes: int) -> npt.NDArray[np.bool_]:
    """Return which genes of a corpus are in some runs, (n_genes,)."""
    measured = np.zeros(n_genes, dtype=bool)
    for first, behind in runs:
        measured[first:behind] = True
    return measured

"""Abundances of cell types in spots by majorisation, one spot after the other while all of it is in the cache."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

# A type that is not there falls by a factor a step and never to 0; below this share of a spot it is left.
_TINY = 1e-12


@numba.njit(parallel=True, cache=True, error_model="numpy")
def poisson_abundances(
    indptr: NDArray[np.int64],
    genes: NDArray[np.int32],
    counts: NDArray[np.float32],
    means: NDArray[np.float32],
    sizes: NDArray[np.float32],
    weights: NDArray[np.float32],
    max_steps: int,
    tolerance: float,
    abundance: NDArray[np.float32],
) -> None:
    """Write the maximum-likelihood abundances of each spot, counts being Poisson; see `deconvolve_counts`.

    Parameters
    ----------
    indptr, genes, counts
        CSR of spots x genes.
    means
        (n_genes, n_types), counts of a cell.
    sizes
        (n_types,), sum of `means` over genes, each times its weight.
    weights
        (n_genes,), how often a gene counts.
    max_steps, tolerance
        Steps of a spot at most; it is done when no type moves by more than this share of its counts.
    abundance
        (n_spots, n_types), written.
    """
    n_types = means.shape[1]
    for spot in numba.prange(indptr.size - 1):
        first, last = indptr[spot], indptr[spot + 1]
        total = np.float32(0.0)
        for entry in range(first, last):
            total += counts[entry] * weights[genes[entry]]
        if total == 0.0:
            abundance[spot] = np.nan
            continue
        now = np.empty(n_types, np.float32)
        share = np.empty(n_types, np.float32)
        for kind in range(n_types):
            now[kind] = total / (sizes[kind] * n_types)
        for _ in range(max_steps):
            share[:] = 0.0
            for entry in range(first, last):
                gene = genes[entry]
                expected = np.float32(_TINY)
                for kind in range(n_types):
                    expected += means[gene, kind] * now[kind]
                ratio = weights[gene] * counts[entry] / expected
                for kind in range(n_types):
                    share[kind] += ratio * means[gene, kind]
            moved = np.float32(0.0)
            for kind in range(n_types):
                after = now[kind] * share[kind] / sizes[kind]
                moved = max(moved, abs(after - now[kind]) * sizes[kind])
                now[kind] = after
            if moved <= tolerance * total:
                break
        abundance[spot] = now

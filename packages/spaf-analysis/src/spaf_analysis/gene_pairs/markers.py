"""Gene pairs that mark groups of cells by more than their two genes do, on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import chi2

if TYPE_CHECKING:
    from scipy import sparse

_VALUES_AT_ONCE = 4_000_000  # cells x pairs x columns
_RIDGE = 1e-3  # on standardised columns, so that a gene that tells all cells apart has a fit
_STEPS = 40
_ENOUGH = 1e-8  # of a step


@dataclass(frozen=True)
class PairMarkers:
    """What each pair adds to its two genes, for one group against all other cells.

    Attributes
    ----------
    coefficient
        Of the standardised value of the pair; above 0 where the group has more of it.
    ratio, p
        Likelihood ratio, and its p with one degree of freedom; NaN where the pair has one value in all cells.
    p_presence
        Of the likelihood ratio that asks only whether the pair is seen, without its genes.
    more_present
        Whether a larger share of the group has it.
    """

    coefficient: NDArray[np.float64]
    ratio: NDArray[np.float64]
    p: NDArray[np.float64]
    p_presence: NDArray[np.float64]
    more_present: NDArray[np.bool_]


def pair_markers(
    counts: sparse.csc_matrix,
    pairs: sparse.csc_matrix,
    genes: NDArray[np.integer],
    is_group: NDArray[np.bool_],
) -> PairMarkers:
    """Test whether gene pairs tell a group from other cells beyond their two genes and the depth.

    Parameters
    ----------
    counts
        Cells x genes.
    pairs
        Cells x pairs: the score of a pair in a cell, 0 where it has none.
    genes
        (n_pairs, 2): columns of both genes in `counts`.
    is_group
        Cells of the group.

    Returns
    -------
    PairMarkers
        A value a pair.

    Notes
    -----
    Two logistic regressions a pair: of the group on both genes and the depth, and on these and the pair. A gene stands
    in them as its counts (by which Poisson counts tell groups apart) and as log(1 + counts): with one of the two alone,
    what is left of the genes would be found in their pair. Newton's method, some pairs at once; time grows with cells x
    pairs, memory does not.
    """
    n_cells, n_pairs = pairs.shape
    depth = np.log1p(np.asarray(counts.sum(axis=1)).ravel())
    target = np.asarray(is_group, dtype=np.float64)
    coefficient, ratio = np.full(n_pairs, np.nan), np.full(n_pairs, np.nan)
    at_once = max(1, _VALUES_AT_ONCE // (n_cells * 7))
    for start in range(0, n_pairs, at_once):
        some = slice(start, min(start + at_once, n_pairs))
        a, b = (counts[:, genes[some, side]].toarray().T for side in (0, 1))
        value = pairs[:, some].toarray().T.astype(np.float64)
        columns = np.stack([np.broadcast_to(depth, a.shape), a, np.log1p(a), b, np.log1p(b), value], axis=2)
        spread = columns.std(axis=1, keepdims=True)
        columns = (columns - columns.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
        design = np.concatenate([np.ones((*a.shape, 1)), columns], axis=2)
        without, weights = _fit(design[:, :, :-1], target, None)
        started = np.concatenate([weights, np.zeros((len(weights), 1))], axis=1)
        with_pair, weights = _fit(design, target, started)
        varies = spread[:, 0, -1] > 0
        coefficient[some] = np.where(varies, weights[:, -1], np.nan)
        ratio[some] = np.where(varies, np.maximum(2 * (with_pair - without), 0), np.nan)
    p_presence, more_present = _presence(pairs, target)
    return PairMarkers(coefficient, ratio, chi2.sf(ratio, 1), p_presence, more_present)


def _fit(
    design: NDArray[np.float64], target: NDArray[np.float64], started: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the penalised log likelihood and the weights of logistic regressions, pairs x cells x columns."""
    n_columns = design.shape[2]
    penalty = np.full(n_columns, _RIDGE)
    penalty[0] = 0.0
    if started is None:
        started = np.zeros((len(design), n_columns))
        started[:, 0] = np.log(target.mean() / (1 - target.mean()))
    weights = started
    value = _likelihood(design, target, weights, penalty)
    for _ in range(_STEPS):
        share = expit(np.einsum("pnk,pk->pn", design, weights))
        slope = np.einsum("pnk,pn->pk", design, target - share) - penalty * weights
        weighted = design * (share * (1 - share))[:, :, None]
        curvature = np.matmul(weighted.transpose(0, 2, 1), design) + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        scale = np.ones(len(design))
        for _ in range(12):  # a step that overshoots is halved
            found = _likelihood(design, target, weights + scale[:, None] * step, penalty)
            worse = found < value - 1e-12
            if not worse.any():
                break
            scale = np.where(worse, scale / 2, scale)
        improved = found >= value
        weights = np.where(improved[:, None], weights + scale[:, None] * step, weights)
        gain = np.where(improved, found - value, 0.0)
        value = np.maximum(found, value)
        if gain.max(initial=0.0) < _ENOUGH:
            break
    return value, weights


def _likelihood(
    design: NDArray[np.float64], target: NDArray[np.float64], weights: NDArray[np.float64], penalty: NDArray[np.float64]
) -> NDArray[np.float64]:
    logit = np.einsum("pnk,pk->pn", design, weights)
    loss = np.logaddexp(0, logit) - target * logit
    return np.asarray(-loss.sum(axis=1) - 0.5 * (weights**2 @ penalty))


def _presence(pairs: sparse.csc_matrix, target: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return p of a likelihood ratio of two by two cells, and whether the group has the pair more often."""
    seen = pairs.copy()
    seen.eliminate_zeros()
    seen.data[:] = 1.0
    size = np.array([target.sum(), len(target) - target.sum()])
    both = np.stack([np.asarray(seen.T @ part) for part in (target, 1 - target)])
    share = both.sum(axis=0) / size.sum()
    ratio = np.zeros(pairs.shape[1])
    for observed, expected in ((both, size[:, None] * share), (size[:, None] - both, size[:, None] * (1 - share))):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio += 2 * np.where(observed > 0, observed * np.log(observed / expected), 0.0).sum(axis=0)
    return chi2.sf(np.maximum(ratio, 0), 1), both[0] / size[0] > both[1] / size[1]

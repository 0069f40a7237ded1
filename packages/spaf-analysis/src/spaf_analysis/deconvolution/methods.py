"""The ways from counts of spots to proportions of cell types."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import gammaln, softmax

from spaf_analysis.metrics import log_normalize

if TYPE_CHECKING:
    from scipy import sparse

    from spaf_analysis.deconvolution.signatures import Signatures

Method = Literal["negative-binomial", "poisson", "least-squares", "markers"]
METHODS: tuple[Method, ...] = ("negative-binomial", "poisson", "least-squares", "markers")

N_MARKERS = 100  # genes of a type
_MAX_STEPS, _TOLERANCE = 300, 1e-4
# Dispersions among which that is taken under which the spots are most likely; the last is Poisson's.
_DISPERSIONS = (1.0, 3.0, 10.0, 30.0, 100.0, math.inf)
_SPOTS_LOOKED_AT = 200


@dataclass(frozen=True)
class Abundances:
    """What a method made of spots.

    Attributes
    ----------
    cells
        (n_spots, n_types), how many cells of each type explain a spot, up to the depth of the technology; NaN for spots
        without counts, and shares that sum to 1 for a method that gives no numbers.
    dispersion
        Of the counts, that was taken; infinite for Poisson's, NaN for a method without likelihood.
    """

    cells: NDArray[np.float64]
    dispersion: float = math.nan


def proportions(abundance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide the rows of abundances by their sums; NaN where there is nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: NDArray[np.float64] = abundance / abundance.sum(axis=1, keepdims=True)
    return shares


def poisson(counts: sparse.csr_matrix, reference: Signatures, weights: NDArray[np.float64] | None = None) -> Abundances:
    """Maximum likelihood of Poisson counts whose mean is the sum of the cells of a spot.

    Each step divides every count among the types by what they are expected to give and adds up what each got (the
    expectation-maximisation of Shepp and Vardi, IEEE Trans. Med. Imaging 1, 1982; of Richardson and Lucy in optics).
    """
    from spaf_analysis.deconvolution._kernels import poisson_abundances

    means, weight = _single(reference.means.T), _weights(weights, reference)
    abundance = np.empty((counts.shape[0], len(reference.types)), np.float32)
    poisson_abundances(
        *_arrays(counts), means, (weight[:, None] * means).sum(axis=0), weight, _MAX_STEPS, _TOLERANCE, abundance
    )
    return Abundances(abundance.astype(np.float64), math.inf)


def negative_binomial(
    counts: sparse.csr_matrix,
    reference: Signatures,
    weights: NDArray[np.float64] | None = None,
    *,
    dispersion: float | None = None,
) -> Abundances:
    """Maximum likelihood of counts that vary more than Poisson's, since cells of a type differ and technologies too.

    The log-likelihood is bounded from below by what Poisson's steps maximise and a line through the rest, so that every
    step makes it larger: an abundance is multiplied by sum(b y / mu) / sum(b (y + d) / (mu + d)), with counts y,
    expectation mu, signature b and dispersion d (majorisation as of Hunter and Lange, Am. Stat. 58, 2004). It begins at
    Poisson's. Where no dispersion is given, the one of a few under which some of the spots are most likely is taken.
    """
    start = poisson(counts, reference, weights)
    if dispersion is None:
        depth = np.asarray(counts.sum(axis=1)).ravel()
        with_counts = np.flatnonzero(depth > 0)
        step = max(len(with_counts) // _SPOTS_LOOKED_AT, 1)
        some = with_counts[::step][:_SPOTS_LOOKED_AT]
        dispersion = _best_dispersion(counts[some], reference, start.cells[some])
    if math.isinf(dispersion):
        return start
    return Abundances(_improved(counts, reference, start.cells, dispersion, weights), dispersion)


def least_squares(
    counts: sparse.csr_matrix, reference: Signatures, weights: NDArray[np.float64] | None = None
) -> Abundances:
    """Non-negative least squares of the counts (Lawson and Hanson 1974), in the space of the types."""
    weight = np.sqrt(_weights(weights, reference).astype(np.float64))[:, None]
    basis, triangle = np.linalg.qr(weight * reference.means.T)
    reduced = np.asarray(counts @ (weight * basis))
    abundance = np.array([nnls(triangle, spot)[0] for spot in reduced]).reshape(-1, len(reference.types))
    abundance[np.diff(counts.indptr) == 0] = np.nan
    return Abundances(abundance)


def markers(counts: sparse.csr_matrix, reference: Signatures, weights: NDArray[np.float64] | None = None) -> Abundances:
    """Scores of marker genes through a softmax: how a spot differs from the others, and no amounts.

    Markers of a type are the genes whose log share is furthest above that of any other type. Log counts are z-scored by
    gene over the spots, averaged over the markers of a type, and z-scored again.
    """
    weight = _weights(weights, reference).astype(np.float64)
    logs = np.log1p(1e4 * reference.shares)
    values = log_normalize(counts).tocsc()
    scores = np.empty((counts.shape[0], len(reference.types)))
    for kind in range(len(reference.types)):
        above = logs[kind] - np.delete(logs, kind, axis=0).max(axis=0)
        chosen = np.argsort(-above, kind="stable")[:N_MARKERS]
        chosen = chosen[weight[chosen] > 0.0]
        z = _z_scores(values[:, chosen].toarray())
        scores[:, kind] = z @ weight[chosen] / max(weight[chosen].sum(), 1.0)
    shares = softmax(_z_scores(scores), axis=1)
    shares[np.diff(counts.indptr) == 0] = np.nan
    return Abundances(np.asarray(shares))


FUNCTIONS: dict[Method, Callable[..., Abundances]] = {
    "negative-binomial": negative_binomial,
    "poisson": poisson,
    "least-squares": least_squares,
    "markers": markers,
}


def log_likelihood(
    counts: NDArray[np.float64], expected: NDArray[np.float64], dispersion: float
) -> NDArray[np.float64]:
    """Log-likelihood of each spot under a negative binomial, or Poisson's where the dispersion is infinite."""
    expected = np.maximum(expected, 1e-12)
    if math.isinf(dispersion):
        each = counts * np.log(expected) - expected - gammaln(counts + 1.0)
    else:
        each = (
            gammaln(counts + dispersion) - gammaln(dispersion) - gammaln(counts + 1.0)
            + dispersion * np.log(dispersion / (expected + dispersion))
            + counts * np.log(expected / (expected + dispersion))
        )  # fmt: skip
    total: NDArray[np.float64] = each.sum(axis=1)
    return total


def _best_dispersion(counts: sparse.csr_matrix, reference: Signatures, start: NDArray[np.float64]) -> float:
    """Return the dispersion under which some spots are most likely, each fitted under it."""
    dense = counts.toarray().astype(np.float64)
    best = math.inf, -math.inf
    for dispersion in _DISPERSIONS:
        fitted = start if math.isinf(dispersion) else _improved(counts, reference, start, dispersion)
        value = float(log_likelihood(dense, fitted @ reference.means, dispersion).sum())
        if value > best[1]:
            best = dispersion, value
    return best[0]


def _improved(
    counts: sparse.csr_matrix,
    reference: Signatures,
    start: NDArray[np.float64],
    dispersion: float,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    from spaf_analysis.deconvolution._kernels import negative_binomial_abundances

    abundance = _single(start)
    negative_binomial_abundances(
        *_arrays(counts), _single(reference.means.T), dispersion, _weights(weights, reference), _MAX_STEPS, _TOLERANCE,
        abundance,
    )  # fmt: skip
    return abundance.astype(np.float64)


def _arrays(counts: sparse.csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    return counts.indptr.astype(np.int64), counts.indices.astype(np.int32), counts.data.astype(np.float32)


def _weights(weights: NDArray[np.float64] | None, reference: Signatures) -> NDArray[np.float32]:
    return np.ones(reference.means.shape[1], np.float32) if weights is None else _single(weights)


def _single(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32, order="C")


def _z_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = values.std(axis=0)
    scores: NDArray[np.float64] = (values - values.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return scores

"""The ways from counts of spots to abundances of cell types: how many cells of each explain a spot.

They are in cells up to the depth of the technology, NaN for spots without counts. Marker scores give shares that sum to
1 and no numbers. A likelihood that lets counts scatter more than Poisson's (negative binomial) was tried too: on spots
made of the cells of a STARmap section it erred as much or more, with a shift between technologies or without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import softmax

from spaf_analysis.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse

    from spaf_analysis.deconvolution.signatures import Signatures

Method = Literal["poisson", "platform", "least-squares", "markers"]
METHODS: tuple[Method, ...] = ("poisson", "platform", "least-squares", "markers")

N_MARKERS = 100  # genes of a type
_LEAST_SPOTS = 10
_MAX_STEPS, _TOLERANCE = 300, 1e-4
_FACTOR_COUNTS = 30.0  # of all spots, as if seen beside the expected ones: factors of rare genes stay near 1
_OVERDISPERSION = 0.01  # of genes that spots have many counts of; they would say the most otherwise


def proportions(abundance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide the rows of abundances by their sums; NaN where there is nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: NDArray[np.float64] = abundance / abundance.sum(axis=1, keepdims=True)
    return shares


def poisson(
    counts: sparse.csr_matrix, reference: Signatures, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
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
    return abundance.astype(np.float64)


def platform(
    counts: sparse.csr_matrix, reference: Signatures, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Poisson's likelihood after each gene of the reference was brought to how often the spots' technology sees it.

    The sum of all spots is explained by types first; what is observed of a gene over what that expects is its factor
    (as in RCTD, Cable et al., Nature Biotechnology 40, 2022), drawn towards 1 where counts are few. Genes count the
    less, the more counts a spot has of them. What the reference lacks altogether ends up in the factors too.
    """
    return poisson(counts, *adapted(counts, reference, weights))


def adapted(
    counts: sparse.csr_matrix, reference: Signatures, weights: NDArray[np.float64] | None = None
) -> tuple[Signatures, NDArray[np.float64]]:
    """Return the signatures as the technology of the spots sees them, and the weights of genes, of `platform`."""
    from scipy import sparse

    total = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    weight = _weights(weights, reference).astype(np.float64)
    weight /= 1.0 + _OVERDISPERSION * total / max(counts.shape[0], 1)
    whole = poisson(sparse.csr_matrix(total), reference, weight)[0]
    if not np.isfinite(whole).all():
        return reference, weight
    factor = (total + _FACTOR_COUNTS) / (whole @ reference.means + _FACTOR_COUNTS)
    return replace(reference, means=reference.means * factor), weight


def least_squares(
    counts: sparse.csr_matrix, reference: Signatures, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Non-negative least squares of the counts (Lawson and Hanson 1974), in the space of the types."""
    weight = np.sqrt(_weights(weights, reference).astype(np.float64))[:, None]
    basis, triangle = np.linalg.qr(weight * reference.means.T)
    reduced = np.asarray(counts @ (weight * basis))
    abundance = np.array([nnls(triangle, spot)[0] for spot in reduced]).reshape(-1, len(reference.types))
    abundance[np.diff(counts.indptr) == 0] = np.nan
    return abundance


def check_enough_spots(counts: sparse.csr_matrix, slide: NDArray[np.int64], names: NDArray[np.str_] | None) -> None:
    """Ask for the spots that scores of markers need, since they compare spots with each other.

    Raises
    ------
    InputError
        If a slide has spots with counts, but too few.
    """
    has_counts = np.diff(counts.indptr) > 0
    n_spots = np.bincount(slide[has_counts], minlength=1)
    for code, n in enumerate(n_spots.tolist()):
        if n < _LEAST_SPOTS and (n or not has_counts.any()):
            name = "" if names is None else str(names[slide == code][0]) if (slide == code).any() else ""
            who = f"slide {name!r} has" if name else "there are"
            raise InputError(
                f"the method markers compares the spots of a slide, and {who} {n} with counts of shared genes, where "
                f"at least {_LEAST_SPOTS} are needed: choose another method."
            )


def markers(
    counts: sparse.csr_matrix,
    reference: Signatures,
    weights: NDArray[np.float64] | None = None,
    *,
    slide: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Scores of marker genes through a softmax: how a spot differs from the others, and no amounts.

    Markers of a type are the genes whose log share is furthest above that of any other type. Log counts are z-scored by
    gene over the spots of a slide, averaged over the markers of a type, and z-scored again.
    """
    weight = _weights(weights, reference).astype(np.float64)
    logs = np.log1p(1e4 * reference.shares)
    values = _log_shares(counts).tocsc()
    scores = np.empty((counts.shape[0], len(reference.types)))
    for kind in range(len(reference.types)):
        above = logs[kind] - np.delete(logs, kind, axis=0).max(axis=0)
        chosen = np.argsort(-above, kind="stable")[:N_MARKERS]
        # Of a panel with few genes the best hundred hold genes that mark another type.
        chosen = chosen[(weight[chosen] > 0.0) & (above[chosen] > 0.0)]
        z = _z_scores(values[:, chosen].toarray(), slide)
        scores[:, kind] = z @ weight[chosen] / max(weight[chosen].sum(), 1.0)
    shares = softmax(_z_scores(scores, slide), axis=1)
    shares[np.diff(counts.indptr) == 0] = np.nan
    return np.asarray(shares)


FUNCTIONS: dict[Method, Callable[..., NDArray[np.float64]]] = {
    "poisson": poisson,
    "platform": platform,
    "least-squares": least_squares,
    "markers": markers,
}


def _log_shares(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return log1p of counts per 10,000, of counts that need not be whole: neighbours may have been added."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    values = counts.astype(np.float64)
    values.data *= np.repeat(1e4 / np.where(depth > 0.0, depth, 1.0), np.diff(values.indptr))
    np.log1p(values.data, out=values.data)
    return values


def _arrays(counts: sparse.csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    return counts.indptr.astype(np.int64), counts.indices.astype(np.int32), counts.data.astype(np.float32)


def _weights(weights: NDArray[np.float64] | None, reference: Signatures) -> NDArray[np.float32]:
    return np.ones(reference.means.shape[1], np.float32) if weights is None else _single(weights)


def _single(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32, order="C")


def _z_scores(values: NDArray[np.float64], slide: NDArray[np.int64] | None) -> NDArray[np.float64]:
    if slide is not None:
        by_slide = np.empty_like(values)
        for code in np.unique(slide):
            by_slide[slide == code] = _z_scores(values[slide == code], None)
        return by_slide
    spread = values.std(axis=0)
    scores: NDArray[np.float64] = (values - values.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return scores

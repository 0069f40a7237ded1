"""Proportions of cell types in spots, with what is known of their error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.deconvolution.choice import judge_methods
from spaf_analysis.deconvolution.methods import (
    FUNCTIONS,
    METHODS,
    Method,
    adapted,
    check_enough_spots,
    markers,
    proportions,
)
from spaf_analysis.deconvolution.signatures import Signatures, signatures
from spaf_analysis.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse

N_REPLICATES = 20
_VALUES_AT_ONCE = 4_000_000
_LEAST_EXPECTED = 0.05  # counts, of genes that a misfit is judged by: rarer ones say little and scatter much
_TIED = 1.02  # times the least error: made spots of three divisions tell no finer
_FAR = 5.0  # scaled median absolute deviations


@dataclass(frozen=True)
class Deconvolution:
    """What spots are made of.

    Attributes
    ----------
    types
        Names, for the columns below.
    cells
        (n_spots, n_types), proportions of cells: abundances of signatures in counts a cell. NaN for empty spots.
    rna
        (n_spots, n_types), proportions of counts, in which large cells weigh more.
    error
        (n_spots, n_types), standard error of `cells` by resampling genes; None where it was not asked for.
    misfit
        (n_spots,), mean squared residual over its variance, over genes of which enough is expected: 1 where counts are
        Poisson's, more where technologies or cells of a type differ. NaN where it cannot be told.
    fits
        (n_spots,), whether the misfit of a spot is in line with that of the others; means nothing where that is NaN.
    method
        That was used.
    judged
        The table of `judge_methods`, where the method was chosen by it.
    alike
        Pairs of types that are hardly told apart, with their correlation.
    """

    types: list[str]
    cells: NDArray[np.float64]
    rna: NDArray[np.float64]
    error: NDArray[np.float64] | None
    misfit: NDArray[np.float64]
    fits: NDArray[np.bool_]
    method: Method
    judged: pd.DataFrame | None
    alike: list[tuple[str, str, float]]


def deconvolve_counts(
    counts: sparse.csr_matrix,
    reference: sparse.csr_matrix,
    labels: NDArray[np.str_],
    *,
    method: Method | Literal["auto"] = "auto",
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
    slides: NDArray[np.str_] | None = None,
    own: sparse.csr_matrix | None = None,
) -> Deconvolution:
    """Find the proportions of cell types in spots.

    Parameters
    ----------
    counts
        Spots x genes.
    reference
        Cells x the same genes.
    labels
        (n_cells,), the type of each cell; "" where it has none.
    method
        ``poisson`` (maximum likelihood), ``platform`` (the same after a factor for each gene), ``least-squares``,
        ``markers`` (scores, no amounts), or ``auto``: of those that give amounts, the one with the least error on spots
        made of the reference as another technology would see them.
    n_replicates
        Times that genes are drawn anew for the standard errors; 0: none are computed.
    seed
        Of everything random.
    slides
        (n_spots,), the slide of each spot: ``markers`` compares spots within their slide. None: all are of one.
    own
        Spots x genes, counts that misfits are judged on, where those of neighbours were added to `counts`: abundances
        are scaled to the depth of the spot itself. None: `counts`.

    Raises
    ------
    InputError
        If an option is unknown or out of range, a slide has fewer than 10 spots with counts for ``markers``,
        or the reference cannot be used (see `signatures`).
    """
    if method not in (*METHODS, "auto"):
        raise InputError(f"there is no method {method!r}; the methods are: auto, {', '.join(METHODS)}.")
    if n_replicates < 0 or n_replicates == 1:
        raise InputError(f"the number of replicates must be 0 or at least 2, not {n_replicates}.")
    known = signatures(reference, labels)
    judged = None
    if method == "auto":
        depth = np.asarray(counts.sum(axis=1)).ravel()
        typical = float(np.median(depth[depth > 0])) if (depth > 0).any() else 0.0
        judged = judge_methods(reference, labels, typical, seed=seed)
        # Scores of markers say no amounts; nearly equal shares err little and would be chosen where spots are mixed.
        method = "poisson" if judged is None else _best_amounts(judged)
    run: Callable[..., NDArray[np.float64]] = FUNCTIONS[method]
    if method == "markers":
        slide = np.zeros(counts.shape[0], np.int64) if slides is None else np.unique(slides, return_inverse=True)[1]
        slide = slide.ravel()
        check_enough_spots(counts, slide, slides)
        run = partial(markers, slide=slide)
    found = run(counts, known)
    error = _standard_errors(run, counts, known, found, n_replicates, seed) if n_replicates else None
    # What spots hold and how far they are from it is told by the signatures that explained them.
    seen = adapted(counts, known)[0] if method == "platform" else known
    misfit = np.full(counts.shape[0], np.nan)
    if method != "markers":
        misfit = _misfit(counts, found, seen) if own is None else _misfit(own, _of_depth(found, own, seen), seen)
    return Deconvolution(
        types=known.types,
        cells=proportions(found),
        rna=proportions(found * seen.sizes),
        error=error,
        misfit=misfit,
        fits=_in_line(misfit),
        method=method,
        judged=judged,
        alike=known.alike(),
    )


def _best_amounts(judged: pd.DataFrame) -> Method:
    """Return the method with the least error; of methods that hardly differ, the one that learns from real spots."""
    amounts = judged[judged["method"] != "markers"]
    tied = amounts.loc[amounts["rmse"] <= _TIED * amounts["rmse"].min(), "method"].tolist()
    method: Method = "platform" if "platform" in tied else tied[0]
    return method


def _standard_errors(
    run: Callable[..., NDArray[np.float64]],
    counts: sparse.csr_matrix,
    known: Signatures,
    found: NDArray[np.float64],
    n_replicates: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return the standard deviations over replicates in which each gene counts as often as it is drawn."""
    rng = np.random.default_rng([seed, 2])
    n_genes = counts.shape[1]
    total = np.zeros(found.shape)
    squares = np.zeros(found.shape)
    centre = proportions(found)
    for _ in range(n_replicates):
        weights = rng.multinomial(n_genes, np.full(n_genes, 1.0 / n_genes)).astype(np.float64)
        away = proportions(run(counts, known, weights)) - centre
        total += away
        squares += away * away
    variance = (squares - total * total / n_replicates) / (n_replicates - 1)
    error: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0.0))
    return error


def _of_depth(found: NDArray[np.float64], own: sparse.csr_matrix, known: Signatures) -> NDArray[np.float64]:
    """Return abundances that let as many counts be expected of a spot as it has itself."""
    expected = found @ known.sizes
    depth = np.asarray(own.sum(axis=1), dtype=np.float64).ravel()
    scaled: NDArray[np.float64] = (
        found * np.divide(depth, expected, out=np.ones_like(depth), where=expected > 0.0)[:, None]
    )
    return scaled


def _misfit(counts: sparse.csr_matrix, found: NDArray[np.float64], known: Signatures) -> NDArray[np.float64]:
    """Return the mean squared Pearson residual of each spot, some spots at a time."""
    misfit = np.full(counts.shape[0], np.nan)
    step = max(_VALUES_AT_ONCE // counts.shape[1], 1)
    for start in range(0, counts.shape[0], step):
        part = slice(start, min(start + step, counts.shape[0]))
        expected = found[part] @ known.means
        judged = expected >= _LEAST_EXPECTED
        residual = np.where(judged, (counts[part].toarray() - expected) ** 2 / np.where(judged, expected, 1.0), 0.0)
        n_judged = judged.sum(axis=1)
        misfit[part] = np.where(n_judged > 0, residual.sum(axis=1) / np.maximum(n_judged, 1), np.nan)
    return misfit


def _in_line(misfit: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a misfit is no more than five scaled median absolute deviations above the median, as logarithms."""
    known = np.isfinite(misfit) & (misfit > 0.0)
    fits = np.ones(misfit.size, dtype=bool)
    if known.any():
        logs = np.log(misfit[known])
        middle = np.median(logs)
        fits[known] = logs <= middle + _FAR * max(1.4826 * float(np.median(np.abs(logs - middle))), 1e-3)
    return fits

"""Genes that were not measured, of cells that were, and how far each is to be believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from spaf_analysis.errors import InputError
from spaf_analysis.imputation.blend import AccuracyModel, Evidence, blend_weights
from spaf_analysis.imputation.parts import AskModel, Part, fit_part, weighed
from spaf_analysis.imputation.spaces import Depth, find_spaces, log_counts, moments
from spaf_analysis.imputation.ways import WAYS

if TYPE_CHECKING:
    from scipy import sparse

BLEND, MODEL = "blend", "model"
METHODS: tuple[str, ...] = (*WAYS, MODEL, BLEND)
N_FOLDS = 5
LEAST_SHARED = 20
MAX_SHARED = 1000  # genes that cells are compared by: those that vary most in the reference
MAX_ANCHORS = 5_000  # cells of the query that ways are judged on and averaged over
MAX_REFERENCE = 20_000  # cells of the reference
_LEAST_CELLS = 50
_LEAST_KNOWN = 10  # shared genes that a model must know to be judged alone
_VALUES_AT_ONCE = 16_000_000
_GENES_AT_ONCE = 256
_N_DRAWS = 500


@dataclass(frozen=True)
class Imputation:
    """What was fitted, and what is known of each gene.

    Attributes
    ----------
    genes
        A row a predicted gene: `gene`, `measured`, `accuracy` (of measured genes: correlation over cells of what was
        predicted without the gene with what was measured), `expected` (the same as genes that resemble it let one
        expect), `expected_low`, `expected_high` (80 % of the held-out genes lay between).
    held_out
        The same of the measured genes that the methods were judged on, whether or not they are predicted.
    methods
        A row a method: `method`, `pearson` over held-out genes, `low`, `high` (95 %, over genes); best first.
    method
        That is used.
    rank_correlation
        Of expected and realised accuracy over held-out genes, none of which was read for its own expectation.
    shares
        (n_genes,), mean over cells of the reference of the share that each predicted gene has of their counts.
    log_depth
        Counts that the logarithms of the reference stand on, in the median of its cells.
    parts
        What predicts.
    n_cells
        Cells of the query.
    """

    genes: pd.DataFrame
    held_out: pd.DataFrame
    methods: pd.DataFrame
    method: str
    rank_correlation: float
    shares: NDArray[np.float64]
    log_depth: float
    parts: list[Part]
    n_cells: int

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield log expression of some genes (rows of `genes`) in all cells, until all genes were there."""
        rows = np.arange(self.n_cells)
        step = int(np.clip(_VALUES_AT_ONCE // max(self.n_cells, 1), 1, _GENES_AT_ONCE))
        at = 0
        for part in self.parts:
            for start in range(0, part.given.size, step):
                some = part.given[start : start + step]
                yield slice(at, at + some.size), part.predict(rows, some)
                at += some.size

    def dense(self) -> NDArray[np.float32]:
        """Return all of it, cells x genes."""
        found = np.empty((self.n_cells, len(self.genes)), np.float32)
        for genes, values in self.blocks():
            found[:, genes] = values
        return found


def fit_imputation(
    query: sparse.csr_matrix,
    reference: sparse.csr_matrix,
    others: sparse.csr_matrix,
    names: Sequence[str],
    *,
    depth: NDArray[np.floating] | None = None,
    method: str = "auto",
    measured: bool | NDArray[np.int64] = False,
    without_depth: bool = False,
    ask_model: AskModel | None = None,
    seed: int = 0,
) -> Imputation:
    """Fit the ways to genes, judge them on measured genes that are held out, and weigh them.

    Parameters
    ----------
    query
        Cells x shared genes, counts.
    reference
        Cells of the reference x the same genes.
    others
        Cells of the reference x genes that are wanted and the query did not measure.
    names
        Of the shared genes, then of the others.
    depth
        (n_reference,), counts of all genes of each cell of the reference, on which its logarithms stand; None: of those
        that are given.
    method
        "knn", "spage", "ridge", "ridge-200", "kernel", "model", "blend", or "auto": the best of them on held-out genes.
        "model" leaves out genes that the model does not know; "auto" is "model" only where it knows all of them.
    measured
        Predict the shared genes as well, each without having read it; or those at some positions. It can be done of
        genes that vary in both tables, and of the 1,000 that vary most in the reference where there are more.
    without_depth
        Remove what of genes follows from the depth of a cell, from query, reference and what is predicted; accuracies
        are then of what is left.
    ask_model
        The way of a model, if there is one.
    seed
        Of folds, anchors and kernels.

    Raises
    ------
    InputError
        If the method is unknown, or too few genes or cells can be used.
    """
    _check_method(method, has_model=ask_model is not None)
    rng = np.random.default_rng(seed)
    whole = np.asarray(reference.sum(axis=1) + others.sum(axis=1)).ravel() if depth is None else np.asarray(depth)
    kept = np.flatnonzero(np.diff(reference.indptr) > 0)
    kept = np.sort(rng.choice(kept, MAX_REFERENCE, replace=False)) if kept.size > MAX_REFERENCE else kept
    anchors = np.flatnonzero(np.diff(query.indptr) > 0)
    for cells, where in ((kept, "the reference"), (anchors, "the spatial table")):
        if cells.size < _LEAST_CELLS:
            raise InputError(f"{where} has {cells.size} cells with counts of shared genes; {_LEAST_CELLS} are needed.")
    anchors = np.sort(rng.choice(anchors, MAX_ANCHORS, replace=False)) if anchors.size > MAX_ANCHORS else anchors
    reference, others, whole = reference[kept], others[kept], whole[kept]
    shared_logs, truth = log_counts(reference, whole), log_counts(query[anchors])
    used = _used_genes(truth, shared_logs)
    of_cells = np.asarray(query.sum(axis=1), dtype=np.float64).ravel()
    removed = Depth.of(of_cells, whole) if without_depth else None
    tested = used
    if method == MODEL and ask_model is not None:
        tested = used[ask_model.knows[used]]
        if tested.size < _LEAST_KNOWN:
            raise InputError(
                f"the model knows {tested.size} of the shared genes that vary, and it is judged on at least "
                f"{_LEAST_KNOWN}: choose another method."
            )
    # By name, so that nothing follows from the order in which a table lists its genes.
    of_names = np.asarray(names, dtype=object)
    tested = tested[np.argsort(of_names[tested].astype(str), kind="stable")]
    fold = rng.permutation(tested.size) % N_FOLDS
    parts: list[Part] = []
    judged: list[Evidence] = []
    for number in range(N_FOLDS):
        held = tested[fold == number]
        rest = used[~np.isin(used, held)]
        spaces = find_spaces(query[:, rest], reference[:, rest], anchors, removed)
        part, evidence = fit_part(spaces, shared_logs[:, held], truth[:, held], held, anchors, ask_model, seed)
        parts.append(part)
        judged.append(evidence)
    known = Evidence.joined(judged)
    # The weights of a gene, and what is expected of it, come from genes of other folds.
    elsewhere = [Evidence.joined(judged[:number] + judged[number + 1 :]) for number in range(N_FOLDS)]
    blended = [blend_weights(other, one) for other, one in zip(elsewhere, judged, strict=True)]
    asked_for = np.flatnonzero(np.full(query.shape[1], measured)) if isinstance(measured, bool) else measured
    wanted = np.arange(query.shape[1], query.shape[1] + others.shape[1])
    if method == MODEL and ask_model is not None:
        wanted = wanted[ask_model.knows[wanted]]
    accuracies = {way.name: known.truth[:, at] for at, way in enumerate(parts[0].ways)}
    accuracies[BLEND] = known.accuracy(np.concatenate(blended))
    methods = _judged(accuracies, seed)
    chosen = _best(methods, np.concatenate([asked_for, wanted]), ask_model) if method == "auto" else method
    accuracy = accuracies[chosen]
    of_fold = np.repeat(np.arange(N_FOLDS), [part.genes.size for part in parts])
    expected = np.empty(accuracy.size)
    for number in range(N_FOLDS):
        inside = of_fold == number
        fitted = AccuracyModel.fit(known.about[~inside], accuracy[~inside])
        expected[inside] = fitted.predict(known.about[inside])
    model = AccuracyModel.fit(known.about, accuracy, expected)
    held_out = _rows(of_names[np.concatenate([part.genes for part in parts])], accuracy, expected, model, measured=True)
    final = [
        replace(weighed(part, chosen, weights), given=np.flatnonzero(np.isin(part.genes, asked_for)))
        for part, weights in zip(parts, blended, strict=True)
    ]
    final = [part for part in final if part.given.size]
    found = held_out[np.isin(np.concatenate([part.genes for part in parts]), asked_for)]
    tables = [found] if len(found) else []
    if wanted.size:
        spaces = find_spaces(query[:, used], reference[:, used], anchors, removed)
        of_wanted = log_counts(others, whole)[:, wanted - query.shape[1]]
        part, evidence = fit_part(spaces, of_wanted, None, wanted, anchors, ask_model, seed)
        final.append(weighed(part, chosen, blend_weights(known, evidence)))
        nothing = np.full(wanted.size, np.nan)
        tables.append(_rows(of_names[wanted], nothing, model.predict(evidence.about), model, measured=False))
    if not tables:
        if asked_for.size:
            raise InputError("none of the measured genes that are asked for can be predicted: see `measured`.")
        lacks = "the reference has none that the spatial table lacks"
        raise InputError(f"there is no gene to impute: {lacks}{' and the model knows' if method == MODEL else ''}.")
    positions = np.concatenate([part.genes[part.given] for part in final])
    shares = np.concatenate([_mean_shares(part, whole) for part in (reference, others)])[positions]
    rank = float(spearmanr(expected, accuracy).statistic)
    genes = pd.concat(tables, ignore_index=True)
    return Imputation(
        genes, held_out, methods, chosen, rank, shares, float(np.median(whole)), final, query.shape[0]
    )  # fmt: skip


def _mean_shares(counts: sparse.csr_matrix, depth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean over cells of the share that each gene has of their counts."""
    return np.asarray(counts.T @ (1.0 / np.maximum(depth, 1.0)), dtype=np.float64).ravel() / max(counts.shape[0], 1)


def _best(methods: pd.DataFrame, wanted: NDArray[np.int64], ask_model: AskModel | None) -> str:
    """Return the best method that serves every gene: a model alone has nothing for those that it does not know."""
    names: list[str] = methods["method"].tolist()
    if ask_model is not None and not ask_model.knows[wanted].all():
        names.remove(MODEL)
    return names[0]


def _check_method(method: str, *, has_model: bool) -> None:
    if method not in (*METHODS, "auto"):
        raise InputError(f"there is no method {method!r}; the methods are: auto, {', '.join(METHODS)}.")
    if method == MODEL and not has_model:
        raise InputError("the method 'model' needs a model that predicts counts of genes: name one.")


def _used_genes(query: sparse.csr_matrix, reference: sparse.csr_matrix) -> NDArray[np.int64]:
    """Return the shared genes that vary in both, most variable in the reference where there are too many."""
    spread = moments(reference)[1]
    used = np.flatnonzero((spread > 1e-6) & (moments(query)[1] > 1e-6))
    if used.size < LEAST_SHARED:
        raise InputError(
            f"{used.size} shared genes vary in the spatial table and in the reference; at least {LEAST_SHARED} are "
            "needed to compare cells by."
        )
    if used.size > MAX_SHARED:
        used = np.sort(used[np.argsort(-spread[used], kind="stable")[:MAX_SHARED]])
    return used


def _judged(accuracies: dict[str, NDArray[np.float64]], seed: int) -> pd.DataFrame:
    """Return the mean accuracy of each method with its interval over genes, best first."""
    n_genes = len(next(iter(accuracies.values())))
    draws = np.random.default_rng([seed, 4]).integers(0, n_genes, (_N_DRAWS, n_genes))
    rows = []
    for name, values in accuracies.items():
        low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
        rows.append((name, float(values.mean()), float(low), float(high)))
    table = pd.DataFrame(rows, columns=["method", "pearson", "low", "high"])
    return table.sort_values("pearson", ascending=False, kind="stable", ignore_index=True)


def _rows(
    names: NDArray[np.object_],
    accuracy: NDArray[np.float64],
    expected: NDArray[np.float64],
    model: AccuracyModel,
    *,
    measured: bool,
) -> pd.DataFrame:
    low, high = (np.clip(expected + away, -1.0, 1.0) for away in model.residuals)
    return pd.DataFrame(
        {"gene": names, "measured": measured, "accuracy": accuracy, "expected": expected, "expected_low": low,
         "expected_high": high}
    )  # fmt: skip

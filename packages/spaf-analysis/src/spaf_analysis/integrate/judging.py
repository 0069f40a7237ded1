"""How well identity is kept and batches are mixed, with intervals over cells or tiles and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.integrate.baselines import PCA_ROW
from spaf_analysis.integrate.scores import IDENTITY, MIXING, SILHOUETTES, PerCell, per_cell_scores
from spaf_analysis.metrics import percentile_interval, verdict
from spaf_analysis.niches.judging import agreement


@dataclass(frozen=True)
class Integration:
    """Embeddings judged.

    Attributes
    ----------
    scores
        A row an embedding: `method`, each metric with its interval (`nmi`, `nmi_low`, `nmi_high`, ...), `resolution` of
        the best NMI.
    differences
        `method`, `baseline`, `metric`, `difference`, `low`, `high`, `verdict`: "better", "tied", "worse"; of mixing
        "costs identity" where it is better and the purity of neighbours is worse, and "not judged" without labels;
        "for comparison" of what rests on silhouettes.
    overall
        `method`, `baseline`, `verdict`: over NMI, ARI, purity and CiLISI.
    """

    scores: pd.DataFrame
    differences: pd.DataFrame
    overall: pd.DataFrame


def judge_integration(
    embeddings: Mapping[str, NDArray[np.floating]],
    batch: NDArray[np.integer],
    label: NDArray[np.integer] | None,
    unit: NDArray[np.integer],
    *,
    before: str = PCA_ROW,
    against: tuple[str, ...] = (PCA_ROW,),
    n_replicates: int = 300,
    seed: int = 0,
) -> Integration:
    """Judge embeddings of the same cells.

    Parameters
    ----------
    embeddings
        By name, cells x dimensions, finite.
    batch
        The batch of each cell, from 0.
    label
        The label of each cell, from 0; -1 where it is not known (it then counts for no metric of labels); None without
        labels.
    unit
        What is drawn with replacement for the intervals, from 0: tiles of tissue, or cells.
    before
        The embedding before integration, that PCR is compared with.
    against
        Embeddings that the others are compared with.
    n_replicates
        Draws.
    seed
        Of draws, clusters and the cells whose silhouettes are taken.

    Returns
    -------
    Integration
        Intervals are those of the cells given the graph and the clusters, which are not made anew.
    """
    rng = np.random.default_rng(seed)
    n_units = int(unit.max()) + 1
    drawn = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_replicates).astype(np.float64)
    draws = np.vstack([np.ones(n_units), drawn])
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    resolution: dict[str, float] = {}
    share_before = _batch_share(np.asarray(embeddings[before]), batch, unit, draws) if before in embeddings else None
    for name, embedding in embeddings.items():
        found = per_cell_scores(np.asarray(embedding, dtype=np.float64), batch, label, seed=seed)
        values[name] = _replicates(found, label, unit, draws)
        resolution[name] = found.resolution
        share = values[name]["pcr"] = _batch_share(np.asarray(embedding, dtype=np.float64), batch, unit, draws)
        if share_before is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                values[name]["pcr_comparison"] = np.clip((share_before - share) / share_before, 0.0, 1.0)
        if label is not None:
            values[name]["avg_bio"] = np.mean([values[name][part] for part in ("nmi", "ari", "asw_label")], axis=0)
            values[name]["avg_batch"] = (values[name]["asw_batch"] + values[name]["graph_connectivity"]) / 2
    scores = [
        {"method": name, "resolution": resolution[name]}
        | {key: value for metric, of in metrics.items() for key, value in _columns(metric, of).items()}
        for name, metrics in values.items()
    ]
    differences = [
        row
        for baseline in against
        for name in values
        if name != baseline
        for row in _differences(name, baseline, values, has_label=label is not None)
    ]
    table = pd.DataFrame(differences, columns=["method", "baseline", "metric", "difference", "low", "high", "verdict"])
    return Integration(pd.DataFrame(scores), table, _overall(table))


def _replicates(
    found: PerCell, label: NDArray[np.integer] | None, unit: NDArray[np.integer], draws: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return each metric on the cells as they are, then on every draw."""
    result: dict[str, NDArray[np.float64]] = {}
    for name, value in found.means.items():
        result[name] = _weighted_mean(value, np.zeros(len(value), dtype=np.int64), unit, draws)
    for name, (value, group) in found.means_of_groups.items():
        result[name] = _weighted_mean(value, group, unit, draws)
    if label is not None:
        known = label >= 0
        for ending, code in found.clusters.items():
            table = _contingency(code[known], label[known], unit[known], draws)
            for measure, of in agreement(table).items():
                result[f"{measure}{ending}"] = of
    return result


def _weighted_mean(
    value: NDArray[np.float64], group: NDArray[np.int64], unit: NDArray[np.integer], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over groups of the mean within each, on every draw; cells with NaN or a group of -1 do not count."""
    used = np.isfinite(value) & (group >= 0)
    if not used.any():
        return np.full(len(draws), np.nan)
    code = np.unique(group[used], return_inverse=True)[1].ravel()
    shape = (draws.shape[1], int(code.max()) + 1)
    sums = sparse.csr_array((value[used], (unit[used], code)), shape=shape)
    sizes = sparse.csr_array((np.ones(int(used.sum())), (unit[used], code)), shape=shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (sums.T @ draws.T) / (sizes.T @ draws.T)
    defined = np.isfinite(means)
    total = np.where(defined, means, 0).sum(axis=0)
    result = np.full(len(draws), np.nan)
    np.divide(total, defined.sum(axis=0), out=result, where=defined.any(axis=0))
    return result


def _contingency(
    code: NDArray[np.integer], label: NDArray[np.integer], unit: NDArray[np.integer], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    n_labels = int(label.max()) + 1
    flat = code.astype(np.int64) * n_labels + label
    shape = (draws.shape[1], (int(code.max()) + 1) * n_labels)
    table = sparse.csr_array((np.ones(len(flat)), (unit, flat)), shape=shape)
    return np.asarray((table.T @ draws.T).T).reshape(len(draws), -1, n_labels)


def _batch_share(
    embedding: NDArray[np.float64], batch: NDArray[np.integer], unit: NDArray[np.integer], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of the variance that is between batches, on every draw: principal component regression in closed form.

    Each component's R2 of the regression on batches, weighted by its variance, is the sum of squares between batches
    over that of all, in whatever basis.
    """
    n_batches, n_dimensions = int(batch.max()) + 1, embedding.shape[1]
    embedding = embedding - embedding.mean(axis=0)
    one_hot = sparse.csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))), shape=(draws.shape[1], len(unit)))
    square = (one_hot @ np.einsum("ij,ij->i", embedding, embedding)) @ draws.T
    sizes, sums = np.zeros((n_batches, len(draws))), np.zeros((n_batches, len(draws), n_dimensions))
    for code in range(n_batches):
        inside = batch == code
        sizes[code] = (one_hot @ inside.astype(np.float64)) @ draws.T
        sums[code] = draws @ np.asarray(one_hot @ (embedding * inside[:, None]))
    with np.errstate(divide="ignore", invalid="ignore"):
        within_means = np.where(sizes > 0, (sums**2).sum(axis=2) / sizes, 0.0).sum(axis=0)
        whole = (sums.sum(axis=0) ** 2).sum(axis=1) / sizes.sum(axis=0)
        return np.asarray((within_means - whole) / (square - whole))


def _differences(
    name: str, baseline: str, values: Mapping[str, Mapping[str, NDArray[np.float64]]], *, has_label: bool
) -> list[dict[str, object]]:
    rows = []
    ours, theirs = values[name], values[baseline]
    loses_identity = has_label and _verdict(ours["purity"] - theirs["purity"]) == "worse"
    for metric in ours:
        if metric not in theirs:
            continue
        # Less variance of batches is better.
        difference = ours[metric] - theirs[metric]
        said = _verdict(-difference if metric == "pcr" else difference)
        if metric in SILHOUETTES:
            said = "for comparison"
        elif metric in MIXING and not has_label:
            said = "not judged"
        elif metric in MIXING and said == "better" and loses_identity:
            said = "costs identity"
        interval = percentile_interval(difference[0], difference[1:])
        rows.append(
            {
                "method": name, "baseline": baseline, "metric": metric, "difference": interval.value,
                "low": interval.low, "high": interval.high, "verdict": said,
            }
        )  # fmt: skip
    return rows


def _overall(differences: pd.DataFrame) -> pd.DataFrame:
    """Say over NMI, ARI, purity and CiLISI who is better: where some are better and some worse, it depends."""
    rows = []
    judged = differences[differences["metric"].isin([*IDENTITY, "cilisi"])]
    for (method, baseline), of_pair in judged.groupby(["method", "baseline"], sort=False):
        said = set(of_pair["verdict"])
        better, worse = "better" in said, bool(said & {"worse", "costs identity"})
        what = "it depends" if better and worse else "better" if better else "worse" if worse else "tied"
        rows.append({"method": method, "baseline": baseline, "verdict": what})
    return pd.DataFrame(rows, columns=["method", "baseline", "verdict"])


def _verdict(difference: NDArray[np.float64]) -> str:
    return verdict(percentile_interval(difference[0], difference[1:]))


def _columns(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    interval = percentile_interval(values[0], values[1:])
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}

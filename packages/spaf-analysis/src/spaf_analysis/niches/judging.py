"""How well domains find labelled regions, with intervals over seeds and over tiles of tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.metrics import Tiles, percentile_interval, tile_draws, verdict

MEASURES = ("ari", "nmi")


def agreement(table: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """Return the adjusted Rand index and the normalised mutual information of contingency tables.

    Parameters
    ----------
    table
        Numbers of cells, (..., clusters, labels); they need not be whole.

    Returns
    -------
    dict
        "ari" and "nmi" (over the arithmetic mean of the entropies), each of the leading shape, as scikit-learn has
        them. Where clusters and labels are both one, both are 1.
    """
    cells: NDArray[np.float64] = np.asarray(table, dtype=np.float64)
    rows, columns = cells.sum(axis=-1), cells.sum(axis=-2)
    n = rows.sum(axis=-1)
    pairs, in_rows, in_columns = _pairs(cells).sum(axis=(-1, -2)), _pairs(rows).sum(-1), _pairs(columns).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = in_rows * in_columns / _pairs(n)
        ari = (pairs - expected) / ((in_rows + in_columns) / 2 - expected)
        h_rows, h_columns = _entropy(rows, n), _entropy(columns, n)
        mutual = h_rows + h_columns - _entropy(cells.reshape(*cells.shape[:-2], -1), n)
        nmi = mutual / ((h_rows + h_columns) / 2)
    same = (h_rows < 1e-12) & (h_columns < 1e-12)
    return {"ari": np.where(same, 1.0, ari), "nmi": np.where(same, 1.0, np.clip(nmi, 0.0, 1.0))}


def judge_domains(
    found: Mapping[str, Sequence[NDArray[np.integer]]],
    label: NDArray[np.integer],
    tiles: Tiles,
    *,
    against: str,
    n_replicates: int = 1_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Judge domains against labelled regions.

    Parameters
    ----------
    found
        For each method the domains of each cell, once a seed.
    label
        The region of each cell; -1 where it is not known, and then it is not judged.
    tiles
        Tiles of tissue, which are drawn with replacement.
    against
        The method that others are compared with, on the same tissue.
    n_replicates
        Resampled tissues, each with a seed of each method.
    seed
        Of the draws.

    Returns
    -------
    pandas.DataFrame
        A row a method: `method`, and for "ari" and "nmi" the mean over seeds with its interval (`ari`, `ari_low`,
        `ari_high`), the `ari_minus_baseline` with its, and the `verdict` that follows from the latter.
    """
    rng = np.random.default_rng([seed, 1])
    known = label >= 0
    draws = np.vstack([np.ones(tiles.n), tile_draws(tiles, n_replicates=n_replicates, seed=seed)])
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for method, by_seed in found.items():
        of_seed = [agreement(_tables(code[known], label[known], tiles.code[known], tiles.n, draws)) for code in by_seed]
        chosen = np.concatenate([[0], rng.integers(len(by_seed), size=n_replicates)])
        values[method] = {}
        for measure in MEASURES:
            every = np.stack([scores[measure] for scores in of_seed])
            drawn = every[chosen, np.arange(n_replicates + 1)]
            drawn[0] = every[:, 0].mean()
            values[method][measure] = drawn
    rows = []
    for method, of_method in values.items():
        row: dict[str, object] = {"method": method, "n_seeds": len(found[method])}
        for measure in MEASURES:
            row |= _columns(measure, of_method[measure])
            difference = of_method[measure] - values[against][measure]
            row |= _columns(f"{measure}_minus_baseline", difference)
            row[f"{measure}_verdict"] = (
                "baseline" if method == against else verdict(percentile_interval(difference[0], difference[1:]))
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    interval = percentile_interval(values[0], values[1:])
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _tables(
    code: NDArray[np.integer],
    label: NDArray[np.integer],
    tile: NDArray[np.integer],
    n_tiles: int,
    draws: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Contingency of each resampled tissue: replicates x clusters x labels."""
    n_codes, n_labels = int(code.max()) + 1, int(label.max()) + 1
    flat = (tile.astype(np.int64) * n_codes + code) * n_labels + label
    of_tile = np.bincount(flat, minlength=n_tiles * n_codes * n_labels).reshape(n_tiles, -1).astype(np.float64)
    return np.asarray(draws @ of_tile).reshape(len(draws), n_codes, n_labels)


def _pairs(n: NDArray[np.float64]) -> NDArray[np.float64]:
    return n * (n - 1) / 2


def _entropy(counts: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
    share = counts / n[..., None]
    return np.asarray(-np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=-1))

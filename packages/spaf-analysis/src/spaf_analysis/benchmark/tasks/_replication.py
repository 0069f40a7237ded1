"""What statistics of genes are worth: whether halves of the tissue agree, and what is called where nothing is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from spaf_analysis.benchmark.base import BASELINE, METHOD, Difference, Score, Settings
from spaf_analysis.benchmark.data import strips
from spaf_analysis.errors import InputError
from spaf_analysis.metrics import percentile_interval
from spaf_analysis.tables import places_of, slide_names
from spaf_data import Transcripts

if TYPE_CHECKING:
    import anndata as ad

    from spaf_analysis.benchmark.base import Role

HALVES = "Spearman of both halves"
_LEAST = 10  # of what both halves tell

Drawn = tuple[float, NDArray[np.float64]]  # a value, and the same of each draw


def halves(table: ad.AnnData) -> NDArray[np.int64]:
    """Cut each slide in two across its longer extent; return the half of each cell."""
    return strips(places_of(table), slide_names(table), 2)


def dealt_anew(transcripts: Transcripts, seed: int) -> Transcripts:
    """Deal the genes of each cell's transcripts anew among their places: no gene then lies anywhere in particular."""
    order = np.lexsort((np.random.default_rng(seed).random(transcripts.n_transcripts), transcripts.cell))
    return Transcripts.from_arrays(
        x=np.array(transcripts.x), y=np.array(transcripts.y), z=np.array(transcripts.z), cell=transcripts.cell,
        gene=np.array(transcripts.gene)[order], genes=list(transcripts.genes), cells=transcripts.cells,
        in_nucleus=np.array(transcripts.in_nucleus) if transcripts.nucleus_known else None,
    )  # fmt: skip


def weights_of_genes(genes: NDArray[np.integer], n_genes: int, settings: Settings) -> NDArray[np.float64]:
    """Return how often each row is drawn, (replicates, n), where genes are drawn with replacement.

    Parameters
    ----------
    genes
        (n, k), the k genes that a row is of: rows that share one are not independent.
    n_genes
        Of which they are.
    settings
        Seed and number of draws.
    """
    rng = np.random.default_rng([settings.seed, 7])
    times = rng.multinomial(n_genes, np.full(n_genes, 1 / n_genes), settings.replicates)
    weights: NDArray[np.float64] = times[:, genes].prod(axis=2).astype(np.float64)
    return weights


def agreement(one: NDArray[np.float64], other: NDArray[np.float64], weights: NDArray[np.float64]) -> Drawn:
    """Return the rank correlation of rows that both halves know, and that of each draw of them.

    Raises
    ------
    InputError
        If both know fewer than ten.
    """
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < _LEAST:
        raise InputError(f"both halves of the tissue tell of {int(known.sum())} rows together; {_LEAST} are needed.")
    ranks = np.stack([rankdata(values[known]) for values in (one, other)])
    drawn = np.concatenate([np.ones((1, int(known.sum()))), weights[:, known]])
    total = drawn.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = drawn @ ranks.T / total[:, None]
        moments = [(drawn @ (a * b)) / total for a, b in ((ranks[0], ranks[0]), (ranks[1], ranks[1]), tuple(ranks))]
        spread = np.sqrt((moments[0] - mean[:, 0] ** 2) * (moments[1] - mean[:, 1] ** 2))
        found = (moments[2] - mean[:, 0] * mean[:, 1]) / spread
    return float(found[0]), found[1:]


def share(flags: NDArray[np.bool_], weights: NDArray[np.float64]) -> Drawn:
    """Return the share of rows of which something is true, and that of each draw of them."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(flags.mean()), weights @ flags / weights.sum(axis=1)


def compared(
    method: str, found: Mapping[str, Drawn], *, measure: str, case: str = ""
) -> tuple[list[Score], list[Difference]]:
    """Return the rows of the table: a score of each name, and the method less each other one on the same draws."""
    scores, differences = [], []
    for name, (value, draws) in found.items():
        role: Role = METHOD if name == method else BASELINE
        value, low, high = percentile_interval(value, draws)
        scores.append(Score(name=name, role=role, case=case, measure=measure, value=value, low=low, high=high))
        if role == BASELINE and method in found:
            own = found[method]
            value, low, high = percentile_interval(own[0] - found[name][0], own[1] - draws)
            differences.append(
                Difference(name=method, baseline=name, case=case, measure=measure, value=value, low=low, high=high)
            )
    return scores, differences

"""The metrics of integration of one embedding, as values of cells, so that cells can be resampled."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score, silhouette_samples

from spaf_analysis.integrate.neighbours import DEFAULT_RESOLUTION, RESOLUTIONS, CellGraph, cilisi, lisi

IDENTITY = ("nmi", "ari", "purity")  # what a cell is: judged
MIXING = ("cilisi", "ilisi", "pcr", "pcr_comparison")  # of batches: worth something only where identity is kept
SILHOUETTES = ("asw_label", "asw_batch", "isolated", "avg_bio", "avg_batch")  # for comparison with papers
MAX_SILHOUETTES = 5_000  # cells: they need all distances between them, and judge nothing


@dataclass(frozen=True)
class PerCell:
    """Values of cells behind the metrics of one embedding.

    Attributes
    ----------
    means
        Metrics that are a mean over cells; NaN for cells that do not count.
    means_of_groups
        Metrics that are a mean over groups of the means of their cells, and the group of each cell.
    clusters
        Clusters of the cells: "" at the best resolution of the grid, "_default" at 1.
    resolution
        The best one, by NMI; NaN without labels.
    """

    means: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    means_of_groups: dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]] = field(default_factory=dict)
    clusters: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    resolution: float = float("nan")


def per_cell_scores(
    embedding: NDArray[np.float64], batch: NDArray[np.integer], label: NDArray[np.integer] | None, *, seed: int = 0
) -> PerCell:
    """Compute what the metrics of an embedding rest on.

    Parameters
    ----------
    embedding
        Cells x dimensions.
    batch, label
        As for `judge_integration`.
    seed
        Of clusters, and of the cells whose silhouettes are taken.
    """
    n_batches = int(batch.max()) + 1
    found = PerCell(means={"ilisi": (lisi(embedding, batch) - 1) / max(n_batches - 1, 1)})
    if label is None:
        return found
    known = np.flatnonzero(label >= 0)
    cells, of_batch, of_label = embedding[known], batch[known], np.asarray(label[known], dtype=np.int64)
    graph = CellGraph.of(cells, seed=seed)
    clusters = {resolution: graph.leiden(resolution, seed=seed) for resolution in RESOLUTIONS}
    best = max(clusters, key=lambda resolution: normalized_mutual_info_score(of_label, clusters[resolution]))

    def of_all(values: NDArray[np.floating], missing: float = np.nan) -> NDArray[np.float64]:
        whole = np.full(len(label), missing)
        whole[known] = values
        return whole

    def of_codes(values: NDArray[np.int64]) -> NDArray[np.int64]:
        whole = np.full(len(label), -1, dtype=np.int64)
        whole[known] = values
        return whole

    group = of_codes(of_label)
    found.means["purity"] = of_all(graph.purity(of_label))
    found.means["cilisi"] = of_all(cilisi(cells, of_batch, of_label))
    found.means_of_groups["graph_connectivity"] = (of_all(graph.in_main_component(of_label).astype(float)), group)
    drawn = np.arange(len(known))
    if len(known) > MAX_SILHOUETTES:
        drawn = np.sort(np.random.default_rng(seed).choice(len(known), MAX_SILHOUETTES, replace=False))
    of_drawn = silhouettes(cells[drawn], of_batch[drawn], of_label[drawn])
    for name, values in zip(("asw_label", "asw_batch", "isolated"), of_drawn, strict=True):
        whole = np.full(len(known), np.nan)
        whole[drawn] = values
        if name == "asw_label":
            found.means[name] = of_all(whole)
        else:
            found.means_of_groups[name] = (of_all(whole), group)
    return PerCell(
        found.means, found.means_of_groups,
        {"": of_codes(clusters[best]), "_default": of_codes(clusters[DEFAULT_RESOLUTION])}, best,
    )  # fmt: skip


def silhouettes(
    embedding: NDArray[np.float64], batch: NDArray[np.integer], label: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the silhouettes that scIB takes (Luecken et al., Nature Methods 19, 2022), one a cell.

    Returns
    -------
    tuple of numpy.ndarray
        Of labels, (s + 1) / 2; of batches within a label, 1 - |s|, NaN where a label has one batch or each cell its
        own; those of labels for the cells of isolated labels, which are in the fewest batches, NaN for others.
    """
    n_labels = len(np.unique(label))
    if not 2 <= n_labels < len(label):
        nothing = np.full(len(label), np.nan)
        return nothing, nothing.copy(), nothing.copy()
    of_label = (silhouette_samples(embedding, label) + 1) / 2
    of_batch, isolated = np.full(len(label), np.nan), np.full(len(label), np.nan)
    n_batches = {}
    for code in np.unique(label):
        cells = np.flatnonzero(label == code)
        n_batches[code] = len(np.unique(batch[cells]))
        if 1 < n_batches[code] < len(cells):
            of_batch[cells] = 1 - np.abs(silhouette_samples(embedding[cells], batch[cells]))
    fewest = min(n_batches.values())
    for code, n in n_batches.items():
        if n == fewest:
            isolated[label == code] = of_label[label == code]
    return of_label, of_batch, isolated

"""The figures of a report, each with its caption and a description for those who cannot see it."""

from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spaf_analysis import plots
from spaf_analysis.cell_pairs import SCORES, CellPairBenchmark
from spaf_analysis.gene_pairs import GenePairs
from spaf_analysis.keys import CLUSTERS, GAP, SLIDE, SPATIAL, SPLIT, TRAIN, VALIDATION
from spaf_analysis.metrics import log_normalize

N_GENE_PAIRS = 15
_SPLIT_COLORS = {TRAIN: "#0072b2", GAP: "#c3cad1", VALIDATION: "#e69f00"}
_ACCOUNT = {
    "transcripts": {
        "kept, in analysed cells": "binned",
        "kept, in cells too small": "in_small_cells",
        "in no cell": "unassigned",
        "low quality": "low_quality",
        "control probes": "controls",
    },
    "cells": {"analysed": "kept_cells", "too few transcripts": "small_cells"},
}


@dataclass(frozen=True)
class Picture:
    """A figure inside a page.

    Attributes
    ----------
    uri
        The image itself, as a data URI.
    alt
        What it shows, for those who do not see it.
    caption
        What the reader should know to read it.
    """

    uri: str
    alt: str
    caption: str


def account(numbers: dict[str, int]) -> tuple[Picture, ...]:
    """Draw the shares of what was read, dropped and kept."""
    bars = {
        kind: [(name, numbers[key]) for name, key in parts.items() if numbers.get(key)]
        for kind, parts in _ACCOUNT.items()
    }
    bars = {kind: parts for kind, parts in bars.items() if parts}
    if not bars:
        return ()
    alt = "; ".join(f"{kind}: " + ", ".join(f"{name} {n:,}" for name, n in parts) for kind, parts in bars.items())
    return (_picture(plots.account_bars(bars), alt, "Where the transcripts and cells of the run went."),)


def tissue(adata: ad.AnnData, gene: str, *, max_slides: int) -> tuple[Picture, ...]:
    """Draw maps by cluster and by a gene, two for each slide."""
    labels = adata.obs[CLUSTERS]
    expression = log_normalize(adata.X)[:, [adata.var_names.get_loc(gene)]].toarray().ravel()
    drawn = []
    for name, cells, ending in _slides(adata, max_slides):
        xy = _coordinates(adata, cells)
        drawn.append(
            _picture(
                plots.tissue_categories(
                    xy, labels.iloc[cells], title=f"Clusters of the embedding{ending}", legend="Cluster"
                ),
                f"Map of {len(cells):,} cells of {name}, coloured by {labels.cat.categories.size} clusters.",
                "Each point is a cell at its place in the tissue, coloured by its cluster in the space of the "
                "embedding. The clusters were found without coordinates.",
            )
        )
        drawn.append(
            _picture(
                plots.tissue_values(xy, expression[cells], title=f"{gene}{ending}", label="ln(1 + counts per 10,000)"),
                f"Map of {len(cells):,} cells of {name}, coloured by the expression of {gene}.",
                f"Expression of {gene} in the same cells; the colours end at the 99th percentile.",
            )
        )
    return tuple(drawn)


def umap(adata: ad.AnnData, cells: NDArray[np.integer], layout: NDArray[np.floating]) -> tuple[Picture, ...]:
    """Draw the cells in the space of the embedding."""
    labels = adata.obs[CLUSTERS].iloc[cells]
    part = (
        "" if len(cells) == adata.n_obs else f" {len(cells):,} of {adata.n_obs:,} cells, drawn at random by the seed."
    )
    figure = plots.embedding_categories(layout, labels, title="UMAP of the embedding")
    return (
        _picture(
            figure,
            f"UMAP of {len(cells):,} cells with the numbers of {labels.cat.categories.size} clusters.",
            "Cells with similar embeddings lie close together; numbers and colours are the clusters of the tissue map. "
            f"Distances between far groups mean little.{part}",
        ),
    )


def split(adata: ad.AnnData, *, max_slides: int) -> tuple[Picture, ...]:
    """Draw the regions of training, gap and validation."""
    found = set(adata.obs[SPLIT].astype(str))
    regions = [name for name in (TRAIN, GAP, VALIDATION) if name in found]
    labels = pd.Series(pd.Categorical(adata.obs[SPLIT].astype(str), categories=regions), index=adata.obs_names)
    drawn = []
    for name, cells, ending in _slides(adata, max_slides):
        figure = plots.tissue_categories(
            _coordinates(adata, cells),
            labels.iloc[cells],
            title=f"Regions{ending}",
            legend="Region",
            colors=_SPLIT_COLORS,
        )
        sizes = labels.iloc[cells].value_counts(sort=False)
        text = ", ".join(f"{region} {n:,}" for region, n in sizes.items())
        drawn.append(_picture(figure, f"Map of {name} by region: {text}.", f"Cells by region: {text}."))
    return tuple(drawn)


def training(metrics: pd.DataFrame, best_step: int | None) -> tuple[Picture, ...]:
    """Draw the learning curves."""
    validation = metrics[metrics["split"] == "validation"]
    change = ""
    if len(validation) > 1:
        change = (
            f" Validation loss went from {validation['loss'].iloc[0]:.2f} to {validation['loss'].min():.2f} at best."
        )
    return (
        _picture(
            plots.learning_curves(metrics, best_step=best_step),
            f"Learning curves over {int(metrics['step'].max()):,} steps.{change}",
            "Training (grey) and validation (blue) over the steps of training. Lower losses and higher shares and "
            "AUROCs are better; a validation loss that rises while the training loss falls is over-fitting.",
        ),
    )


def cell_pairs(benchmark: CellPairBenchmark) -> tuple[Picture, ...]:
    """Draw the AUROC of all scores at all radii."""
    if benchmark.evaluation is None:
        return ()
    of = benchmark.distances
    titles = {
        "easy": f"against cells > {of.easy_min:g} µm away",
        "hard": f"against cells {of.hard_min:g}–{of.hard_max:g} µm away",
    }
    table = benchmark.evaluation.scores
    judged = {name: title for name, title in SCORES.items() if (table["score"] == name).any()}
    figure = plots.pair_intervals(table, judged, titles)
    alt = "; ".join(
        f"{SCORES[row['score']]} within {row['radius']:g} µm {titles[row['negatives']]}: {row['auroc']:.3f}"
        for row in table.to_dict(orient="records")
    )
    return (
        _picture(
            figure,
            f"AUROC of neighbouring cells. {alt}.",
            "AUROC with 95 % intervals: the share of cases in which a pair of neighbours scores above another pair. "
            "0.5 (dotted) is chance, 1 is perfect.",
        ),
    )


def gene_pairs(ranked: GenePairs | None) -> tuple[Picture, ...]:
    """Draw observed beside expected of the most enriched gene pairs."""
    top = pd.DataFrame() if ranked is None else ranked.enriched(N_GENE_PAIRS)
    if ranked is None or top.empty:
        return ()
    label = {
        "enrichment": "pairs of neighbouring transcripts (logarithmic axis)",
        "overlap": "cells in which both are co-localised (logarithmic axis)",
    }[ranked.method]
    alt = ", ".join(f"{row.gene_a} and {row.gene_b} {row.fold:.1f} times" for row in top.itertuples())
    return (
        _picture(
            plots.gene_pair_enrichment(top, label=label),
            f"Observed over expected: {alt}.",
            "Observed beside what is expected by chance; the longer the line, the stronger the enrichment.",
        ),
    )


def _picture(figure: Figure, alt: str, caption: str) -> Picture:
    return Picture(plots.svg_uri(figure), alt, caption)


def _slides(adata: ad.AnnData, max_slides: int) -> list[tuple[str, NDArray[np.int64], str]]:
    """Name, cells and ending of titles for the slides with most cells."""
    if SLIDE not in adata.obs:
        return [("the tissue", np.arange(adata.n_obs), "")]
    names = adata.obs[SLIDE].astype(str)
    largest = names.value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:max_slides]
    return [
        (name, np.flatnonzero((names == name).to_numpy()), f", {name}" if names.nunique() > 1 else "")
        for name in largest
    ]


def _coordinates(adata: ad.AnnData, cells: NDArray[np.integer]) -> NDArray[np.float64]:
    return np.asarray(adata.obsm[SPATIAL], dtype=np.float64)[cells, :2]

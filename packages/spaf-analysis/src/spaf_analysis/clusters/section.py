"""The section of the report on cells by their embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.clusters.compute import umap
from spaf_analysis.clusters.tool import cluster, marker_genes
from spaf_analysis.keys import CLUSTERS
from spaf_analysis.plots.maps import embedding_categories
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.tables import embedded_cells

if TYPE_CHECKING:
    from spaf_analysis.report.options import ReportOptions


@dataclass(frozen=True)
class ClustersSection(Section):
    """Clusters of the embedding, the genes that set them apart, and a UMAP.

    Attributes
    ----------
    clusters
        Size and marker genes of each cluster; the clusters themselves are in `obs["spaf_cluster"]`.
    resolution
        Of the clusters.
    cells, layout
        Rows of the table that the UMAP shows, and their places in it, cells x 2.
    """

    clusters: pd.DataFrame
    resolution: float
    cells: NDArray[np.int64]
    layout: NDArray[np.floating]
    figures: tuple[Picture, ...]

    anchor = "umap"
    title = "Cells by their embedding"
    doing = "clustering cells and laying out the UMAP"
    template = """
<div class="two">
<div>{{ show(section.figures) }}</div>
<div>
<table>
<caption>Clusters (Leiden, resolution {{ section.resolution }}) and the genes that set them apart most. The genes
describe the clusters; they are no test, since clusters and genes come from the same counts.</caption>
<thead><tr><th class="text">Cluster</th><th>Cells</th><th>Share</th><th class="text">Highest genes</th></tr></thead>
<tbody>
{% for row in section.clusters.reset_index().to_dict(orient="records") %}
<tr><td class="text">{{ row.cluster }}</td><td>{{ row.n_cells | count }}</td>
<td class="nowrap">{{ (100 * row.share) | figure(1) }} %</td>
<td class="text genes">{{ row.genes | join(", ") }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</div>
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Cluster, which writes `obs["spaf_cluster"]`, and lay out the UMAP."""
        adata, options = context.adata, context.options
        cluster(adata, key=options.key, resolution=options.resolution, seed=options.seed)
        embedding, cells = embedded_cells(adata, options.key)
        shown = _subsample(len(cells), options)
        layout = umap(embedding[shown], seed=options.seed)
        labels = adata.obs[CLUSTERS].iloc[cells[shown]]
        part = (
            ""
            if len(shown) == adata.n_obs
            else f" {len(shown):,} of {adata.n_obs:,} cells, drawn at random by the seed."
        )
        picture = Picture.of(
            embedding_categories(layout, labels, title="UMAP of the embedding"),
            f"UMAP of {len(shown):,} cells with the numbers of {labels.cat.categories.size} clusters.",
            "Cells with similar embeddings lie close together; numbers and colours are the clusters of the tissue map. "
            f"Distances between far groups mean little.{part}",
        )
        return cls(marker_genes(adata), options.resolution, cells[shown], layout, (picture,))

    def sentences(self) -> tuple[str, ...]:
        """Say how many clusters there are."""
        return (f"The embeddings fall into {len(self.clusters)} clusters.",)


def _subsample(n: int, options: ReportOptions) -> NDArray[np.int64]:
    """Positions of the cells in the UMAP: all, or as many as the options say, by the seed."""
    if n <= options.umap_cells:
        return np.arange(n)
    return np.sort(np.random.default_rng(options.seed).choice(n, options.umap_cells, replace=False))

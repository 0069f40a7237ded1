"""The section of the report on the tissue: clusters and a gene with a spatial pattern where the cells are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from spaf_analysis.clusters.section import ClustersSection
from spaf_analysis.errors import InputError
from spaf_analysis.keys import CLUSTERS
from spaf_analysis.plots.maps import tissue_categories, tissue_values
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.slides import largest_slides, values_of
from spaf_analysis.spatial_genes.plot import UNIT, check_gene, expression_of
from spaf_analysis.spatial_genes.tool import spatially_variable_genes
from spaf_analysis.tables import places_of

if TYPE_CHECKING:
    import anndata as ad


@dataclass(frozen=True)
class ShownGene:
    """The gene on the map of the tissue.

    Attributes
    ----------
    name
        Its symbol.
    chosen
        Whether it was chosen for its spatial pattern and not named by the user.
    morans_i
        Moran's I on the graph of neighbouring cells; NaN where it was not computed.
    """

    name: str
    chosen: bool
    morans_i: float


@dataclass(frozen=True)
class TissueSection(Section):
    """Maps by cluster and by a gene.

    Attributes
    ----------
    gene
        The gene on the map.
    n_slides, n_drawn
        Slides of the table, and those drawn at most.
    """

    gene: ShownGene
    n_slides: int
    n_drawn: int
    figures: tuple[Picture, ...]

    anchor = "tissue"
    title = "The tissue"
    doing = "looking for a gene with a spatial pattern"
    template = """
<p>Axes are in micrometres in the frame of the instrument, with y growing downwards as in its images.
{{ why }}</p>
{% if section.n_slides > section.n_drawn %}
<p>The {{ section.n_drawn }} largest of {{ section.n_slides }} slides are drawn; all are analysed.</p>
{% endif %}
<div class="two">{{ show(section.figures) }}</div>
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Choose the gene, and draw two maps for each slide."""
        adata, options = context.adata, context.options
        gene = _shown_gene(adata, options.gene)
        context.section(ClustersSection)
        labels, xy, expression = adata.obs[CLUSTERS], places_of(adata), expression_of(adata, gene.name)
        drawn = []
        for name, cells, ending in largest_slides(adata, options.max_slides):
            by_cluster = tissue_categories(
                xy[cells], labels.iloc[cells], title=f"Clusters of the embedding{ending}", legend="Cluster"
            )
            by_gene = tissue_values(xy[cells], expression[cells], title=f"{gene.name}{ending}", label=UNIT)
            drawn += [
                Picture.of(
                    by_cluster,
                    f"Map of {len(cells):,} cells of {name}, coloured by {labels.cat.categories.size} clusters.",
                    "Each point is a cell at its place in the tissue, coloured by its cluster in the space of the "
                    "embedding. The clusters were found without coordinates.",
                ),
                Picture.of(
                    by_gene,
                    f"Map of {len(cells):,} cells of {name}, coloured by the expression of {gene.name}.",
                    f"Expression of {gene.name} in the same cells; the colours end at the 99th percentile.",
                ),
            ]
        return cls(gene, len(values_of(adata, "slide")), options.max_slides, tuple(drawn))

    def chosen(self) -> dict[str, Any]:
        """Return the gene."""
        return {"gene": self.gene.name}

    def view(self) -> dict[str, Any]:
        """Say why this gene is shown."""
        name, value = self.gene.name, self.gene.morans_i
        if not self.gene.chosen:
            pattern = f" (Moran’s I {value:.2f}; 0 is no spatial pattern, 1 is neighbours alike)"
            return {"why": f"{name} was asked for{'' if math.isnan(value) else pattern}."}
        if math.isnan(value):
            return {"why": f"{name} is shown because it is found in most cells."}
        return {
            "why": f"{name} is shown because its expression has the strongest spatial pattern of all genes found in at "
            f"least 5 % of the cells (Moran’s I {value:.2f}; 0 is no pattern, 1 is neighbours alike)."
        }


def _shown_gene(adata: ad.AnnData, asked: str | None) -> ShownGene:
    if asked is not None:
        check_gene(adata, asked)
    try:
        ranked = spatially_variable_genes(adata)
    except InputError:
        # Without a cell graph there is no spatial pattern to go by; the gene in most cells is a picture all the same.
        ranked = pd.Series(dtype=float)
    if asked is not None:
        return ShownGene(asked, False, float(ranked.get(asked, np.nan)))
    if len(ranked):
        return ShownGene(str(ranked.index[0]), True, float(ranked.iloc[0]))
    most = int(np.argmax(np.asarray((adata.X > 0).sum(axis=0)).ravel()))
    return ShownGene(str(adata.var_names[most]), True, float("nan"))

"""The section of the report on what the model saw and did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
from scipy import sparse

from spaf_analysis.cell_pairs.compute import separation
from spaf_analysis.keys import GAP, SPLIT, TRAIN, VALIDATION
from spaf_analysis.metrics import PlacedCells
from spaf_analysis.plots.maps import tissue_categories
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.slides import largest_slides
from spaf_analysis.tables import embedded_cells, places_of, slide_names

_COLORS = {TRAIN: "#0072b2", GAP: "#c3cad1", VALIDATION: "#e69f00"}


@dataclass(frozen=True)
class RegionsSection(Section):
    """Regions of training, gap and validation.

    Attributes
    ----------
    n_train, n_validation
        Cells of both regions that have an embedding.
    separation
        Smallest distance in um between cells of the two on one slide; NaN if there is none.
    """

    n_train: int
    n_validation: int
    separation: float
    figures: tuple[Picture, ...]

    anchor = "split"
    title = "What the model saw and did not see"
    template = """
<div class="two">
<div>{{ show(section.figures) }}</div>
<div>
<p>The model learned from the <b>training</b> region only. The <b>validation</b> region was held out: everything that
this report says about cell pairs is measured there. Cells of the <b>gap</b> between them are in neither, so that no
held-out cell is a neighbour of a cell seen in training.</p>
{% if section.separation == section.separation %}
<p>The closest cells of the two regions are {{ section.separation | figure(0) }} µm apart.</p>
{% endif %}
<p>Clusters and UMAP above use the cells of all regions. A region of the same section is an easier test than another
section, another patient or another machine; this report says nothing about those.</p>
</div>
</div>
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Measure how far apart the regions are, and draw them."""
        adata = context.adata
        split = adata.obs[SPLIT].astype(str)
        _, embedded = embedded_cells(adata, context.options.key)
        xy, slides, of_cell = places_of(adata), slide_names(adata), split.to_numpy()[embedded]
        train, validation = (
            PlacedCells.of(sparse.csr_matrix((len(rows), 0)), xy[rows], slides[rows])
            for rows in (embedded[of_cell == part] for part in (TRAIN, VALIDATION))
        )
        regions = [name for name in (TRAIN, GAP, VALIDATION) if name in set(split)]
        labels = pd.Series(pd.Categorical(split, categories=regions), index=adata.obs_names)
        drawn = []
        for name, cells, ending in largest_slides(adata, context.options.max_slides):
            figure = tissue_categories(
                xy[cells], labels.iloc[cells], title=f"Regions{ending}", legend="Region", colors=_COLORS
            )
            sizes = labels.iloc[cells].value_counts(sort=False)
            text = ", ".join(f"{region} {n:,}" for region, n in sizes.items())
            drawn.append(Picture.of(figure, f"Map of {name} by region: {text}.", f"Cells by region: {text}."))
        return cls(len(train), len(validation), separation(validation, train), tuple(drawn))

    def numbers(self) -> dict[str, Any]:
        """Return the sizes of both regions."""
        return {"n_train_cells": self.n_train, "n_validation_cells": self.n_validation}

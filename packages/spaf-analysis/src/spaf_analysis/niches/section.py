"""The section of the report on niches: what surrounds a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from spaf_analysis.clusters.section import ClustersSection
from spaf_analysis.clusters.tool import marker_genes
from spaf_analysis.errors import InputError
from spaf_analysis.keys import CLUSTERS, NICHES
from spaf_analysis.niches.tool import judge_niches, niches
from spaf_analysis.plots.maps import tissue_categories
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.slides import largest_slides
from spaf_analysis.report.words import plain_rows
from spaf_analysis.tables import places_of

_LEAST_CELLS = 30


@dataclass(frozen=True)
class NichesSection(Section):
    """Niches on the map, and what they are made of.

    Attributes
    ----------
    niches
        Size, marker genes and most frequent groups of cells of each niche, which are in `obs["spaf_niche"]`.
    is_chosen
        Whether their number was chosen and not given.
    groups
        The column of `obs` whose groups are counted in them.
    judged
        How well they find the regions of `ReportOptions.label`, beside baselines; without rows where none is named.
    reason
        Why there are none, as the end of a sentence; empty where there are.
    """

    niches: pd.DataFrame
    is_chosen: bool
    groups: str
    judged: pd.DataFrame
    reason: str
    figures: tuple[Picture, ...]

    anchor = "niches"
    title = "Niches"
    doing = "finding niches"
    template = """
{% if section.reason %}
<p class="note">There are no niches: {{ section.reason }}.</p>
{% else %}
<p>A niche is what surrounds a cell, and not what the cell is: the embedding and the components of the counts are
averaged over each cell and its nearest ones, at three scales, and these means are clustered, all slides together.
{% if section.is_chosen %}Their number, {{ section.niches | length }}, is the largest on which two halves of the tissue
still agree about as well as on any.{% endif %}</p>
<div class="two">{{ show(section.figures) }}</div>
<table>
<caption>Niches, the groups of {{ section.groups }} that are most frequent in them, and the genes that set them apart
most. The genes describe the niches; they are no test.</caption>
<thead><tr><th class="text">Niche</th><th>Cells</th><th>Share</th><th class="text">Most frequent</th>
<th class="text">Highest genes</th></tr></thead>
<tbody>
{% for row in section.niches.to_dict(orient="records") %}
<tr><td class="text">{{ row.niche }}</td><td>{{ row.n_cells | count }}</td>
<td class="nowrap">{{ (100 * row.share) | figure(1) }} %</td>
<td class="text">{{ row.groups }}</td><td class="text genes">{{ row.genes }}</td></tr>
{% endfor %}
</tbody>
</table>
{% if section.judged | length %}
<table>
<caption>How well domains find the labelled regions, with 95 % intervals over seeds and resampled tiles. “Better” and
“worse” follow from the paired interval of the difference to principal components averaged twice over neighbours.
</caption>
<thead><tr><th class="text">Method</th><th>ARI</th><th>NMI</th>
<th class="text">ARI against the baseline</th></tr></thead>
<tbody>
{% for row in section.judged.to_dict(orient="records") %}
<tr><td class="text">{{ row.method }}</td>
<td>{{ row.ari | figure(3) }}<span class="interval">{{ row.ari_low | figure(3) }} to {{ row.ari_high | figure(3) }}
</span></td>
<td>{{ row.nmi | figure(3) }}<span class="interval">{{ row.nmi_low | figure(3) }} to {{ row.nmi_high | figure(3) }}
</span></td><td class="text">{{ row.ari_verdict }}</td></tr>
{% endfor %}
</tbody>
</table>
{% else %}
<p>How well niches find known regions is judged where a column of obs holds them (<code>--label</code>); how they differ
between conditions is what <code>spaf-analysis niches --condition .. --donor ..</code> says.</p>
{% endif %}
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Find niches, which writes `obs["spaf_niche"]`, and draw them."""
        adata, options = context.adata, context.options
        nothing = pd.DataFrame()
        if adata.n_obs < _LEAST_CELLS:
            reason = f"the table holds {adata.n_obs} cells, and at least {_LEAST_CELLS} are needed"
            return cls(nothing, False, "", nothing, reason, ())
        try:
            niches(adata, key=options.key, n_domains=options.n_domains, seed=options.seed)
        except InputError as error:
            return cls(nothing, False, "", nothing, str(error).rstrip("."), ())
        context.section(ClustersSection)
        groups = options.cell_type or CLUSTERS
        labels, xy = adata.obs[NICHES], places_of(adata)
        drawn = []
        for name, cells, ending in largest_slides(adata, options.max_slides):
            figure = tissue_categories(xy[cells], labels.iloc[cells], title=f"Niches{ending}", legend="Niche")
            drawn.append(
                Picture.of(
                    figure,
                    f"Map of {len(cells):,} cells of {name}, coloured by {labels.cat.categories.size} niches.",
                    "Each point is a cell, coloured by its niche: the number is the same in all slides.",
                )
            )
        judged = nothing
        if options.label is not None:
            judged = judge_niches(
                adata, options.label, key=options.key, seeds=range(3), n_replicates=options.n_replicates
            )
        chosen = bool(adata.uns[NICHES]["is_chosen"])
        return cls(_rows(adata, groups), chosen, groups, judged, "", tuple(drawn))

    def numbers(self) -> dict[str, Any]:
        """Return sizes, and what was judged."""
        if self.reason:
            return {"n_niches": None}
        rows = self.niches[["niche", "n_cells", "share"]]
        return {"n_niches": len(rows), "niches": plain_rows(rows), "niches_judged": plain_rows(self.judged)}

    def sentences(self) -> tuple[str, ...]:
        """Say how many there are."""
        return () if self.reason else (f"By what surrounds them, the cells lie in {len(self.niches)} niches.",)


def _rows(adata: Any, groups: str) -> pd.DataFrame:
    described = marker_genes(adata, key=NICHES)
    shares = pd.crosstab(adata.obs[NICHES], adata.obs[groups].astype(str), normalize="index")
    rows = []
    for name, (_, row) in zip(described.index.astype(str), described.iterrows(), strict=True):
        of_niche = pd.Series(shares.loc[[name]].to_numpy()[0], index=shares.columns)
        most = of_niche.sort_values(ascending=False, kind="stable").head(3)
        rows.append(
            {
                "niche": str(name), "n_cells": int(row["n_cells"]), "share": float(row["share"]),
                "groups": ", ".join(f"{group} ({100 * share:.0f} %)" for group, share in most.items() if share > 0),
                "genes": ", ".join(row["genes"]),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)

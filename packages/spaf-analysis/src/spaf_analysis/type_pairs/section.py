"""The section of the report on which types lie around which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from spaf_analysis.clusters.section import ClustersSection
from spaf_analysis.errors import InputError
from spaf_analysis.keys import CLUSTERS, TYPE_PAIRS
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.words import plain_rows
from spaf_analysis.type_pairs.plot import type_pairs as draw
from spaf_analysis.type_pairs.tool import type_pairs

_SHOWN = 10


@dataclass(frozen=True)
class TypePairsSection(Section):
    """Types around types.

    Attributes
    ----------
    table
        What `tl.type_pairs` wrote; without rows where the types could not be compared.
    groups
        The column of `obs` with the types.
    radius
        Of neighbours, in um.
    n_donors
        Slides, each taken for a donor.
    reason
        Why there is no table, as the end of a sentence; empty where there is one.
    """

    table: pd.DataFrame
    groups: str
    radius: float
    n_donors: int
    reason: str
    figures: tuple[Picture, ...]

    anchor = "types"
    title = "Which cells lie around which"
    doing = "counting types around types"
    template = """
{% if section.reason %}
<p class="note">Types were not compared: {{ section.reason }}.</p>
{% else %}
<div class="two">
<div>{{ show(section.figures) }}</div>
<div>
<p>Cells within {{ section.radius | figure(0) }} µm of the cells of each group of {{ section.groups }}, held against
what they would be on average if all other cells of the slide had each other’s labels (computed exactly).
{% if section.n_donors < 2 %}There is one slide, so no p-value: cells of one donor do not say how another would differ.
{% else %}Each slide is taken for a donor; name the donors with <code>spaf-analysis type-pairs --donor</code>.
{% endif %}</p>
<table>
<caption>The pairs that differ most from chance.</caption>
<thead><tr><th class="text">Cells of</th><th class="text">Around them</th><th>Observed</th>
<th>Expected</th><th>Ratio</th>
{% if section.n_donors > 1 %}<th>p, adjusted</th>{% endif %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text">{{ row.of }}</td><td class="text">{{ row.around }}</td><td>{{ row.observed | count }}</td>
<td>{{ row.expected | figure(0) }}</td><td>{{ row.ratio | figure(2) }}</td>
{% if section.n_donors > 1 %}<td>{{ row.p_adjusted | small }}</td>{% endif %}</tr>
{% endfor %}
</tbody>
</table>
</div>
</div>
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Count, which writes `uns["type_pairs"]`, and draw."""
        adata, options = context.adata, context.options
        context.section(ClustersSection)
        groups = options.cell_type or CLUSTERS
        radius = context.inputs.distances.positive
        try:
            type_pairs(adata, cell_type=groups, radius=radius, seed=options.seed)
        except InputError as error:
            return cls(pd.DataFrame(), groups, radius, 0, str(error).rstrip("."), ())
        stored = adata.uns[TYPE_PAIRS]
        picture = Picture.of(
            draw(adata),
            f"Table of {len(stored['types'])} groups by {len(stored['types'])}, coloured by observed over expected.",
            "Red: more of them around than by chance; blue: fewer. A dot marks an adjusted p of at most .05.",
        )
        return cls(stored["table"], groups, radius, int(stored["n_donors"]), "", (picture,))

    def numbers(self) -> dict[str, Any]:
        """Return the table."""
        return {"type_pairs": plain_rows(self.table)}

    def view(self) -> dict[str, Any]:
        """Return the rows that are shown."""
        known = self.table[np.isfinite(self.table["ratio"])] if len(self.table) else self.table
        return {"rows": known.head(_SHOWN).to_dict(orient="records")}

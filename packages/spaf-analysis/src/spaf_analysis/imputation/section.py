"""The section of the report on genes that were not measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from spaf_analysis.imputation.plot import imputation_accuracy
from spaf_analysis.imputation.tool import stored_imputation
from spaf_analysis.keys import IMPUTATION
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.words import plain_rows


@dataclass(frozen=True)
class ImputationSection(Section):
    """Imputed genes, where `spaf_analysis.tl.impute` has left its record.

    Attributes
    ----------
    methods
        A row a method: correlation over held-out genes with its interval. None where nothing was imputed.
    record
        What was done, as in `uns`.
    """

    methods: pd.DataFrame | None
    record: dict[str, Any]
    figures: tuple[Picture, ...]

    anchor = "imputation"
    title = "Genes that were not measured"
    doing = "reading what was imputed"
    template = """
{% if section.methods is none %}
<p class="note">No genes were imputed; with cells of a reference that measured more,
<code>spaf-analysis impute SPATIAL.h5ad --reference CELLS.h5ad -o IMPUTED.h5ad</code> does.</p>
{% else %}
<p>{{ section.record.n_imputed | count }} genes were predicted by {{ section.record.method }}, from
{{ section.record.n_shared_genes | count }} genes that the reference shares. How far to believe a gene was learnt from
measured genes that were held out; expectation and outcome of these correlate by ranks at
{{ section.record.rank_correlation | figure(2) }}.</p>
<div class="two">
<div>{{ show(section.figures) }}</div>
<div class="scroll"><table>
<caption>Mean correlation with what was measured, over held-out genes (95 % over genes).</caption>
<thead><tr><th class="text">Method</th><th>Correlation</th><th>from</th><th>to</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text">{{ row.method }}</td><td>{{ row.pearson | figure(3) }}</td><td>{{ row.low | figure(3) }}</td>
<td>{{ row.high | figure(3) }}</td></tr>
{% endfor %}
</tbody></table></div>
</div>
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Read the record and draw it."""
        adata = context.adata
        if IMPUTATION not in adata.uns:
            return cls(None, {}, ())
        stored = stored_imputation(adata)
        picture = Picture.of(
            imputation_accuracy(adata),
            "Scatter of expected and realised correlation of held-out genes.",
            "A point a measured gene that was held out; on the line expectations mean what they say.",
        )
        return cls(stored["methods"], stored, (picture,))

    def numbers(self) -> dict[str, Any]:
        """Return the methods and how well expectations held; nothing where nothing was imputed."""
        if self.methods is None:
            return {}
        rank = self.record["rank_correlation"]
        return {"imputation": plain_rows(self.methods), "imputation_rank_correlation": float(rank)}

    def view(self) -> dict[str, Any]:
        """Return the rows of the table."""
        return {"rows": [] if self.methods is None else self.methods.to_dict(orient="records")}

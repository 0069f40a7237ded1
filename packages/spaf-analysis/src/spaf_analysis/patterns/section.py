"""The section of the report on where in the cell genes lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from spaf_analysis.keys import PATTERNS
from spaf_analysis.patterns.compute import leading_patterns, pattern_counts
from spaf_analysis.patterns.plot import pattern_scores
from spaf_analysis.patterns.tool import stored_patterns
from spaf_analysis.report.section import Context, Picture, Section

_SHOWN = 20


@dataclass(frozen=True)
class PatternsSection(Section):
    """Places of genes inside cells, where `spaf_analysis.tl.patterns` has written them.

    Attributes
    ----------
    counts
        By pattern the genes tested and called; None where nothing was written.
    leading
        The pattern of each gene that is called with the largest standard score.
    missing
        Patterns that were not looked for, and what the run lacks for them.
    """

    counts: pd.DataFrame | None
    leading: pd.DataFrame
    missing: dict[str, str]
    figures: tuple[Picture, ...]

    anchor = "patterns"
    title = "Where in the cell genes lie"
    doing = "drawing genes inside cells"
    template = """
{% if section.counts is none %}
<p class="note">Where in the cell genes lie was not computed; it needs the transcripts of the run:
<code>spaf-analysis patterns RUN --cells CELLS.h5ad -o CELLS_WITH.h5ad</code>.</p>
{% else %}
<p>Each gene is held against the other transcripts of the same cells, whose labels are permuted within the nucleus and
within the rest where nuclei are known (in closed form), and counted from the typical gene of the panel. Called at a
false discovery rate of 5 % over all genes and patterns:
{% for row in counts %}{{ row.pattern }} {{ row.n_called | count }} of {{ row.n_tested | count }}
{%- if not loop.last %}, {% endif %}{% endfor %}. Transcripts of a neighbour that segmentation gave to a cell lie at one
side of its edge and look the same as a pattern.</p>
{% for need in needs %}<p class="note">Not looked for: {{ need.patterns }}, for which the run has no
{{ need.what }}.</p>{% endfor %}
{% if rows %}
<div class="two wide">
<div>{{ show(section.figures) }}</div>
<div class="scroll"><table>
<caption>The genes whose place is most certain.</caption>
<thead><tr><th class="text">Gene</th><th class="text">Pattern</th><th>Effect</th><th>z</th><th>FDR</th>
<th>Cells</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text genes">{{ row.gene }}</td><td class="text">{{ row.pattern }}</td>
<td>{{ row.effect | figure(2) }}</td><td>{{ row.z | figure(1) }}</td><td class="nowrap">{{ row.fdr | small }}</td>
<td>{{ row.n_cells | count }}</td></tr>
{% endfor %}
</tbody></table></div>
</div>
{% else %}
<p class="note">No gene is called at this rate.</p>
{% endif %}
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Count what was called, and draw the genes whose place is most certain."""
        if PATTERNS not in context.adata.uns:
            return cls(None, pd.DataFrame(), {}, ())
        stored = stored_patterns(context.adata)
        table, leading = stored["table"], leading_patterns(stored["table"])
        pictures: tuple[Picture, ...] = ()
        if len(leading):
            alt = ", ".join(f"{row.gene} {row.pattern}" for row in leading.head(_SHOWN).itertuples())
            picture = Picture.of(
                pattern_scores(table, _SHOWN),
                f"Standard scores of genes by pattern: {alt}.",
                "Red: more than other transcripts of the same cells; blue: less. A dot marks a gene that is called.",
            )
            pictures = (picture,)
        return cls(pattern_counts(table), leading, dict(stored["missing"]), pictures)

    def numbers(self) -> dict[str, Any]:
        """Return how many genes are called for each pattern; nothing where it was not computed."""
        if self.counts is None:
            return {}
        called = self.counts["n_called"]
        return {"genes_of_pattern": {str(name): int(n) for name, n in called.items()}}

    def view(self) -> dict[str, Any]:
        """Return the rows of the table and of the counts, and what the run lacks."""
        needs: dict[str, list[str]] = {}
        for name, what in self.missing.items():
            needs.setdefault(str(what), []).append(str(name))
        return {
            "rows": self.leading.head(_SHOWN).to_dict(orient="records"),
            "counts": [] if self.counts is None else self.counts.reset_index().to_dict(orient="records"),
            "needs": [{"what": what, "patterns": ", ".join(names)} for what, names in needs.items()],
        }

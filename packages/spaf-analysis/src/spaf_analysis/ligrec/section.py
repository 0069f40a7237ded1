"""The section of the report on ligands and receptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from spaf_analysis.keys import LIGREC
from spaf_analysis.ligrec.plot import ligrec as draw
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.words import plain_rows

_SHOWN = 15


@dataclass(frozen=True)
class LigrecSection(Section):
    """Ligand-receptor pairs, where `spaf_analysis.tl.ligrec` has written them.

    Attributes
    ----------
    table
        A row a pair that was tested; None where nothing was written.
    overlap
        Beside other results; None where there are none.
    record
        What else was written.
    """

    table: pd.DataFrame | None
    overlap: pd.DataFrame | None
    record: dict[str, Any]
    figures: tuple[Picture, ...]

    anchor = "ligrec"
    title = "Ligands beside their receptors"
    doing = "drawing ligand-receptor pairs"
    template = """
{% if section.table is none %}
<p class="note">No ligand-receptor pairs were tested;
<code>spaf-analysis ligrec IN.h5ad --cell-type COLUMN --resource PAIRS.csv -o IN_WITH.h5ad</code> does.</p>
{% else %}
<p>{{ section.record.coverage }} {{ section.record.n_tested | count }} were tested, {{ section.record.n_called |
count }} called: more beside each other than if whole cells were dealt anew among those of one type in one tile,
and than gene pairs as frequent as they are. Genes vary in space together for many reasons; a call is no proof of a
signal.</p>
<div class="two wide">
<div>{{ show(section.figures) }}</div>
<div class="scroll"><table>
<caption>The pairs with the largest excess over gene pairs as frequent.</caption>
<thead><tr><th class="text">Ligand – receptor</th><th>Ratio</th><th>Matched</th><th>Excess</th><th>Rank</th>
<th>FDR</th><th>FDR, matched</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text genes">{{ row.ligand }} – {{ row.receptor }}</td><td>{{ row.ratio | figure(2) }}</td>
<td>{{ row.ratio_matched | figure(2) }}</td><td>{{ row.excess | figure(2) }}</td><td>{{ row.rank | figure(2) }}</td>
<td class="nowrap">{{ row.fdr | small }}</td><td class="nowrap">{{ row.fdr_matched | small }}</td></tr>
{% endfor %}
</tbody></table></div>
</div>
{% if overlap %}
<table>
<caption>Beside other results: pairs that both called, among those that both tested.</caption>
<thead><tr><th class="text">First</th><th class="text">Second</th><th>Tested</th><th>Called</th><th>Called</th>
<th>Both</th><th>Expected</th><th>p</th></tr></thead>
<tbody>
{% for row in overlap %}
<tr><td class="text">{{ row.first }}</td><td class="text">{{ row.second }}</td><td>{{ row.n_tested | count }}</td>
<td>{{ row.called_first | count }}</td><td>{{ row.called_second | count }}</td><td>{{ row.both | count }}</td>
<td>{{ row.expected | figure(1) }}</td><td>{{ row.p | small }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Draw what was written."""
        stored = context.adata.uns.get(LIGREC)
        if stored is None:
            return cls(None, None, {}, ())
        picture = Picture.of(
            draw(context.adata, n=_SHOWN),
            "Observed over expected of each ligand-receptor pair beside that of gene pairs as frequent.",
            "Filled: the pair; open: all gene pairs as frequent as it. The longer the line, the larger the excess.",
        )
        overlap = pd.DataFrame(stored["overlap"]) if "overlap" in stored else None
        return cls(pd.DataFrame(stored["table"]), overlap, dict(stored), (picture,))

    def numbers(self) -> dict[str, Any]:
        """Return how many pairs were tested and called; nothing where none were."""
        if self.table is None:
            return {}
        return {
            "n_ligrec_tested": len(self.table), "n_ligrec_called": int(self.table["called"].sum()),
            "ligrec": plain_rows(self.table.head(_SHOWN)),
        }  # fmt: skip

    def view(self) -> dict[str, Any]:
        """Return the rows that are shown."""
        return {
            "rows": [] if self.table is None else self.table.head(_SHOWN).to_dict(orient="records"),
            "overlap": [] if self.overlap is None else self.overlap.to_dict(orient="records"),
        }

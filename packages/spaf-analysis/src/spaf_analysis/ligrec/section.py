"""The section of the report on ligands and receptors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from spaf_analysis.keys import LIGREC, LIGREC_TYPES
from spaf_analysis.ligrec.plot import ligrec as draw
from spaf_analysis.report.section import Context, Picture, StoredSection
from spaf_analysis.report.words import plain_rows

if TYPE_CHECKING:
    import anndata as ad

_SHOWN = 15


@dataclass(frozen=True)
class LigrecSection(StoredSection):
    """Ligand-receptor pairs, where `spaf_analysis.tl.ligrec` has written them.

    Attributes
    ----------
    of_types
        What `spaf_analysis.tl.ligrec_types` wrote; None where nothing was.
    """

    of_types: pd.DataFrame | None = None

    key = LIGREC
    anchor = "ligrec"
    title = "Ligands beside their receptors"
    doing = "drawing ligand-receptor pairs"
    unwritten = """No ligand-receptor pairs were tested;
<code>spaf-analysis ligrec IN.h5ad --cell-type COLUMN --resource PAIRS.csv -o IN_WITH.h5ad</code> does."""
    written = """
<p>{{ section.stored.coverage }} {{ section.stored.n_tested | count }} were tested, {{ section.stored.n_called |
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
{% if senders %}
<table>
<caption>Which types send and which receive: what is most certain of all pairs and types tested, beyond type and
tile.</caption>
<thead><tr><th class="text">Ligand – receptor</th><th class="text">Sends</th><th class="text">Receives</th>
<th>Ratio</th><th>z</th><th>FDR</th></tr></thead>
<tbody>
{% for row in senders %}
<tr><td class="text genes">{{ row.ligand }} – {{ row.receptor }}</td><td class="text">{{ row.sender }}</td>
<td class="text">{{ row.receiver }}</td><td>{{ row.ratio | figure(2) }}</td><td>{{ row.z | figure(1) }}</td>
<td class="nowrap">{{ row.fdr | small }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
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
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Read what was written, of types too, and draw it."""
        made = super().compute(context)
        stored = context.adata.uns.get(LIGREC_TYPES)
        return made if stored is None else replace(made, of_types=pd.DataFrame(stored["table"]))

    @classmethod
    def drawn(cls, adata: ad.AnnData, stored: dict[str, Any]) -> tuple[Picture, ...]:
        """Draw the pairs beside pairs as frequent."""
        picture = Picture.of(
            draw(adata, n=_SHOWN),
            "Observed over expected of each ligand-receptor pair beside that of gene pairs as frequent.",
            "Filled: the pair; open: all gene pairs as frequent as it. The longer the line, the larger the excess.",
        )
        return (picture,)

    def numbers_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return how many pairs were tested and called, and the rows that lead."""
        table = pd.DataFrame(stored["table"])
        return {
            "n_ligrec_tested": len(table), "n_ligrec_called": int(table["called"].sum()),
            "ligrec": plain_rows(table.head(_SHOWN)),
        }  # fmt: skip

    def view_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the rows that are shown, and those beside other results."""
        return {
            "rows": pd.DataFrame(stored["table"]).head(_SHOWN).to_dict(orient="records"),
            "senders": [] if self.of_types is None else self.of_types.head(_SHOWN).to_dict(orient="records"),
            "overlap": pd.DataFrame(stored.get("overlap", {})).to_dict(orient="records"),
        }

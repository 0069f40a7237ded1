"""The section of the report on gene pairs that interact across cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from spaf_analysis.keys import PERTURBATION
from spaf_analysis.perturbation.plot import perturbation
from spaf_analysis.perturbation.tool import sentence
from spaf_analysis.report.section import Picture, StoredSection
from spaf_analysis.report.words import plain_rows

if TYPE_CHECKING:
    import anndata as ad

_SHOWN = 10


class PerturbationSection(StoredSection):
    """Interactions of gene pairs, where `spaf_analysis.tl.perturb` has written them."""

    key = PERTURBATION
    anchor = "perturbation"
    title = "Genes of neighbours that act together"
    doing = "drawing interactions of genes"
    unwritten = """No genes were changed; for a model that tells whether two cells are neighbours,
<code>spaf-analysis perturb CELLS.h5ad --model MODEL --cell-type COLUMN --left A --right B -o CELLS_WITH.h5ad</code>
does it."""
    written = """
<p>{{ said }} The sum of both single changes explains {{ (100 * section.stored.additive_r2) | figure(1) }} % of what
gene pairs change; what is shown is the rest. Near pairs were told from their matched far ones with an AUROC of
{{ section.stored.auroc | figure(2) }}.</p>
{{ show(section.figures) }}
<table>
<caption>The gene pairs that differ most between near and far pairs of cells.</caption>
<thead><tr><th class="text">Gene</th><th class="text">Gene of the other cell</th><th>Near</th><th>Far</th><th>p</th>
<th>FDR</th><th>Rank among controls</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text">{{ row.gene_left }}</td><td class="text">{{ row.gene_right }}</td><td>{{ row.near | small }}</td>
<td>{{ row.far | small }}</td><td>{{ row.p | small }}</td><td>{{ row.fdr | small }}</td>
<td>{% if row.control_rank == row.control_rank %}{{ row.control_rank | figure(2) }}{% else %}–{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
"""

    @classmethod
    def drawn(cls, adata: ad.AnnData, stored: dict[str, Any]) -> tuple[Picture, ...]:
        """Draw the heat map and the volcano; nothing where no gene pair was tested."""
        if not len(pd.DataFrame(stored["table"])):
            return ()
        heat, _ = perturbation(adata)
        picture = Picture.of(
            heat,
            "Heat map of interactions of gene pairs, and a volcano of their differences and p-values.",
            "Dots and blue points: called at the false discovery rate of the analysis.",
        )
        return (picture,)

    def numbers_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return how many gene pairs were tested and called, and the rows that lead."""
        names = ("n_tested", "n_called", "n_controls", "n_controls_called", "additive_r2", "auroc")
        leading = plain_rows(pd.DataFrame(stored["table"]).head(_SHOWN))
        return {"perturbation": {name: stored[name] for name in names} | {"leading": leading}}

    def view_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the rows that are shown, and the result in a sentence."""
        rows = pd.DataFrame(stored["table"]).head(_SHOWN)
        return {"rows": rows.to_dict(orient="records"), "said": sentence(stored)}

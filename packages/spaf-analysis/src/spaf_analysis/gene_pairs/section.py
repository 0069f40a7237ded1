"""The section of the report on genes that sit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from spaf_analysis.errors import InputError
from spaf_analysis.gene_pairs.compute import GenePairs
from spaf_analysis.gene_pairs.groups import markers_sentence
from spaf_analysis.gene_pairs.plot import COUNTED, gene_pair_enrichment, gene_pair_markers
from spaf_analysis.gene_pairs.tool import enriched_gene_pairs
from spaf_analysis.keys import GENE_PAIR_MARKERS
from spaf_analysis.report.section import Card, Context, Picture, Section, StoredSection
from spaf_analysis.report.words import count, plain_rows

if TYPE_CHECKING:
    import anndata as ad

N_SHOWN = 15


@dataclass(frozen=True)
class GenePairsSection(Section):
    """Gene pairs most enriched.

    Attributes
    ----------
    ranked
        Ranked gene pairs; None when the slide has none.
    """

    ranked: GenePairs | None
    figures: tuple[Picture, ...]

    anchor = "genes"
    title = "Genes that sit together"
    doing = "ranking gene pairs"
    template = """
{% if section.ranked is none %}
<p class="note">The slide holds no co-localised gene pairs.</p>
{% else %}
<p>{{ method }}</p>
<p>{{ section.ranked.n_significant | count }} of {{ section.ranked.n_tested | count }} pairs tested are enriched at a
false discovery rate of 5 % (Benjamini–Hochberg).
{%- if section.ranked.n_untested %} Another {{ section.ranked.n_untested | count }} pairs of the panel were not tested:
of pairs of which few neighbouring transcripts are expected none could be significant, and each would make the others
less so.{% endif %} Pairs seen in at least 10 cells are ranked.</p>
{% if rows %}
<div class="two wide">
<div>{{ show(section.figures) }}</div>
<div class="scroll">
<table>
<caption>The {{ rows | length }} gene pairs most enriched.</caption>
<thead><tr><th class="text">Genes</th><th>Observed</th><th>Expected</th><th>Times</th>
{%- if section.ranked.method == "enrichment" %}<th>z</th>{% endif %}
<th>FDR</th><th>Cells</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text genes">{{ row.gene_a }} – {{ row.gene_b }}</td><td>{{ row.observed | count }}</td>
<td>{{ row.expected | figure(1) }}</td><td>{{ row.fold | figure(2) }}</td>
{%- if section.ranked.method == "enrichment" %}<td>{{ row.z | figure(1) }}</td>{% endif %}
<td class="nowrap">{{ row.fdr | small }}</td><td>{{ row.n_cells | count }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</div>
{% else %}
<p class="note">No pair that is seen in at least 10 cells is enriched at this rate.</p>
{% endif %}
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Rank, and draw observed beside expected of the most enriched gene pairs."""
        try:
            ranked = enriched_gene_pairs(context.adata)
        except InputError:
            return cls(None, ())
        top = ranked.enriched(N_SHOWN)
        if top.empty:
            return cls(ranked, ())
        alt = ", ".join(f"{row.gene_a} and {row.gene_b} {row.fold:.1f} times" for row in top.itertuples())
        picture = Picture.of(
            gene_pair_enrichment(top, label=COUNTED[ranked.method]),
            f"Observed over expected: {alt}.",
            "Observed beside what is expected by chance; the longer the line, the stronger the enrichment.",
        )
        return cls(ranked, (picture,))

    def numbers(self) -> dict[str, Any]:
        """Count the gene pairs that are co-localised in at least one cell."""
        return {"n_gene_pairs": 0 if self.ranked is None else self.ranked.n_colocalized}

    def cards(self) -> tuple[Card, ...]:
        """Count the gene pairs that are co-localised in at least one cell."""
        return (Card(count(self.numbers()["n_gene_pairs"]), "gene pairs co-localised in some cell"),)

    def view(self) -> dict[str, Any]:
        """Return the rows of the table, and what their expectation is."""
        top = pd.DataFrame() if self.ranked is None else self.ranked.enriched(N_SHOWN)
        return {
            "rows": top.to_dict(orient="records"),
            "method": "" if self.ranked is None else method_sentences(self.ranked),
        }


class GenePairMarkersSection(StoredSection):
    """Gene pairs that mark groups beyond their genes, where `spaf_analysis.tl.gene_pair_markers` has written them."""

    key = GENE_PAIR_MARKERS
    anchor = "markers"
    title = "Gene pairs that mark groups"
    doing = "drawing gene pairs that mark groups"
    unwritten = """Gene pairs were not held against groups;
<code>spaf-analysis gene-pairs IN.h5ad --groupby COLUMN -o IN_WITH.h5ad</code> does it."""
    written = """
<p>{{ said }} Genes that a group has more of are found together more often there, so a pair counts for what it adds to
both genes and the depth, at a false discovery rate of 5 % over all pairs and groups.</p>
<div class="two wide">
<div>{{ show(section.figures) }}</div>
<div class="scroll"><table>
<caption>The gene pairs that add most to their genes.</caption>
<thead><tr><th class="text">Group</th><th class="text">Genes</th><th>Coefficient</th><th>FDR</th>
<th>FDR, presence</th><th>Cells</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text">{{ row.group }}</td><td class="text genes">{{ row.gene_a }} – {{ row.gene_b }}</td>
<td>{{ row.coefficient | figure(2) }}</td><td class="nowrap">{{ row.fdr | small }}</td>
<td class="nowrap">{{ row.fdr_presence | small }}</td><td>{{ row.n_cells | count }}</td></tr>
{% endfor %}
</tbody></table></div>
</div>
"""

    @classmethod
    def drawn(cls, adata: ad.AnnData, stored: dict[str, Any]) -> tuple[Picture, ...]:
        """Draw what pairs add beside what their presence alone says."""
        picture = Picture.of(
            gene_pair_markers(adata, n=N_SHOWN),
            "How certain gene pairs mark a group: by what they add to their genes, and by presence alone.",
            "Filled: by what the pair adds to its two genes (in colour where it was called); open: by presence alone.",
        )
        return (picture,)

    def numbers_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return how many pairs and groups were tested and called, and the rows that lead."""
        names = ("n_tested", "n_called", "n_presence", "n_vanished")
        rows = plain_rows(pd.DataFrame(stored["table"]).head(N_SHOWN))
        return {"gene_pair_markers": {name: int(stored[name]) for name in names} | {"leading": rows}}

    def view_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the rows that are shown, and the result in a sentence."""
        rows = pd.DataFrame(stored["table"]).head(N_SHOWN)
        return {"rows": rows.to_dict(orient="records"), "said": markers_sentence(stored)}


def method_sentences(ranked: GenePairs) -> str:
    """Say what the expectation of the gene pairs is, and what it cannot tell."""
    if ranked.method == "enrichment":
        return (
            "For each pair of genes, the number of neighbouring transcript pairs (one of each gene, in the same cell) "
            "is compared with its expectation when one gene is held in place and the labels of all others are shuffled "
            "among their transcripts, within the nucleus and within the rest of each cell; of the two directions the "
            "weaker counts. This accounts for how much of either gene a cell has, so the pairs below sit together more "
            "than their abundance explains. Ranked by z, the excess in standard deviations."
        )
    return (
        "For each pair of genes, the number of cells in which the two are co-localised is compared with what is "
        "expected if the cells in which either takes part in any co-localised pair were spread independently "
        "(hypergeometric test). This corrects for how common either gene is, but genes of the same cell type come out "
        "high as well: it does not separate sitting together from being expressed together."
    )

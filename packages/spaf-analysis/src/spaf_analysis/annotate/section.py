"""The section of the report on labels that were carried from a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from spaf_analysis.annotate.plot import label_confusion, label_rejection, label_reliability
from spaf_analysis.keys import LABEL_PRED, SPATIAL
from spaf_analysis.plots.maps import tissue_categories
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.slides import largest_slides
from spaf_analysis.report.words import plain_rows
from spaf_analysis.tables import places_of

if TYPE_CHECKING:
    import anndata as ad


@dataclass(frozen=True)
class AnnotationSection(Section):
    """Predicted labels, and what is known of them, where `spaf_analysis.tl.annotate` has written them.

    Attributes
    ----------
    record
        What it wrote to ``uns["label_pred"]``; empty where it was not run.
    classes
        A row a class: its cells in this table, and on held-out cells of the reference precision, recall and F1.
    """

    record: dict[str, Any]
    classes: pd.DataFrame
    figures: tuple[Picture, ...]

    anchor = "labels"
    title = "Labels from a reference"
    doing = "drawing labels"
    template = """
{% if not section.record %}
<p class="note">No labels were carried here: that needs a reference of labelled cells. <code>spaf-analysis run ..
--reference REF.h5ad --label COLUMN</code> or <code>spaf-analysis annotate</code> does it.</p>
{% else %}
<p>Labels are those of the column {{ section.record.label }} of {{ section.record.n_reference | count }} labelled cells,
by the method “{{ section.record.method }}”. {{ (100 * section.record.share_unknown) | figure(1) }} % of the cells are
called unknown
{%- if section.record.unknown is defined %}: they are less certain than all but the least certain
{{ (100 * section.record.unknown) | figure(0) }} % of the held-out cells of the reference, or have no counts
{%- endif %}. All scores below are of such held-out cells, and hold for these cells where they are like them.
Where other sections speak of these labels, they are predictions.</p>
{% for note in section.record.notes %}<p>{{ note }}</p>
{% endfor %}
<table>
<caption>Methods on held-out parts of the reference, the best first.</caption>
<thead><tr><th class="text">Method</th><th>Macro-F1</th><th>Accuracy</th></tr></thead>
<tbody>
{% for row in section.record.judged.to_dict(orient="records") %}
<tr><td class="text">{{ row.method }}</td><td>{{ row.macro_f1 | figure(3) }}</td>
<td>{{ row.accuracy | figure(3) }}</td></tr>
{% endfor %}
</tbody>
</table>
<div class="two">{{ show(section.figures) }}</div>
<table>
<caption>Classes: cells here, and how held-out cells of the reference were told.</caption>
<thead><tr><th class="text">Class</th><th>Cells here</th><th>In the reference</th><th>Precision</th><th>Recall</th>
<th>F1</th></tr></thead>
<tbody>
{% for row in section.classes.to_dict(orient="records") %}
<tr><td class="text">{{ row["class"] }}</td><td>{{ row.n_here | count }}</td><td>{{ row.n | count }}</td>
<td>{{ row.precision | figure(3) }}</td><td>{{ row.recall | figure(3) }}</td><td>{{ row.f1 | figure(3) }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Read what was written, and draw it."""
        adata = context.adata
        stored = dict(adata.uns.get(LABEL_PRED, {}))
        if "confusion" not in stored or LABEL_PRED not in adata.obs:
            return cls({}, pd.DataFrame(), ())
        classes = pd.DataFrame(stored["per_class"])
        here = adata.obs[LABEL_PRED].astype(str).value_counts()
        classes.insert(1, "n_here", [int(here.get(name, 0)) for name in classes["class"].astype(str)])
        record = {"notes": (), "n_reference": int(classes["n"].sum()), "label": ""} | stored
        return cls(record, classes, (*_maps(adata, context.options.max_slides), *_pictures(adata)))

    def numbers(self) -> dict[str, Any]:
        """Return what was judged; nothing where there are no labels."""
        if not self.record:
            return {}
        return {
            "labels_method": str(self.record["method"]), "labels_unknown": float(self.record["share_unknown"]),
            "labels_judged": plain_rows(self.record["judged"]), "labels": plain_rows(self.classes),
        }  # fmt: skip

    def sentences(self) -> tuple[str, ...]:
        """Say which method did best on held-out cells of the reference."""
        if not self.record:
            return ()
        best = self.record["judged"].iloc[0]
        return (
            f"Labels come from a reference, by “{self.record['method']}”; the best method on its held-out cells is "
            f"“{best['method']}” with a macro-F1 of {best['macro_f1']:.3f}.",
        )


def _maps(adata: ad.AnnData, max_slides: int) -> tuple[Picture, ...]:
    if SPATIAL not in adata.obsm:
        return ()
    xy, labels = places_of(adata), adata.obs[LABEL_PRED].astype("category")
    return tuple(
        Picture.of(
            tissue_categories(xy[cells], labels.iloc[cells], title=f"Labels{ending}", legend="Label"),
            f"Map of {len(cells):,} cells of {name}, coloured by {labels.cat.categories.size} labels.",
            "Each point is a cell, coloured by the label that the reference gives it.",
        )
        for name, cells, ending in largest_slides(adata, max_slides)
    )


def _pictures(adata: ad.AnnData) -> tuple[Picture, ...]:
    return (
        Picture.of(
            label_reliability(adata), "How often held-out cells are right, by how sure their label is.",
            "On the diagonal probabilities mean what they say. Held-out cells of the reference.",
        ),
        Picture.of(
            label_rejection(adata), "Accuracy of the cells that are left, by the share called unknown.",
            "What calling more cells unknown would leave. Held-out cells of the reference.",
        ),
        Picture.of(
            label_confusion(adata), "Table of labels by predictions.",
            "Rows are labels, columns what held-out cells of the reference were called, as shares of the row.",
        ),
    )  # fmt: skip

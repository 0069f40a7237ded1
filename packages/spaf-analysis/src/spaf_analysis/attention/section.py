"""The section of the report on attention between the genes of neighbouring cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from spaf_analysis.attention.plot import attention
from spaf_analysis.attention.tool import sentence
from spaf_analysis.keys import ATTENTION
from spaf_analysis.report.section import Picture, StoredSection
from spaf_analysis.report.words import plain_rows

if TYPE_CHECKING:
    import anndata as ad


class AttentionSection(StoredSection):
    """Attention after its controls, where `spaf_analysis.tl.attention` has written it."""

    key = ATTENTION
    anchor = "attention"
    title = "Attention between the genes of neighbours"
    doing = "drawing attention between genes"
    unwritten = """Attention was not read; for a model that reads two cells as one sequence,
<code>spaf-analysis attention CELLS.h5ad --model MODEL --cell-type COLUMN --left A --right B -o CELLS_WITH.h5ad</code>
does it."""
    written = """
<p>{{ said }} In <i>left to right</i>, genes of the left cells look at genes of the right ones.</p>
{{ show(section.figures) }}
"""

    @classmethod
    def drawn(cls, adata: ad.AnnData, stored: dict[str, Any]) -> tuple[Picture, ...]:
        """Draw attention against shuffled pairs, and its controls."""
        points, _ = attention(adata)
        picture = Picture.of(
            points,
            "Attention in pairs of cells against that in shuffled pairs, and the variance that controls explain.",
            "Blue: called against shuffled pairs of cells. Bars: share of variance that each control explains.",
        )
        return (picture,)

    def numbers_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return how many gene pairs were tested and called, and what the controls explain."""
        shares = plain_rows(pd.DataFrame(stored["controls"]))
        return {"attention": {name: stored[name] for name in ("n_tested", "n_called")} | {"controls": shares}}

    def view_of(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the result in a sentence."""
        return {"said": sentence(stored)}

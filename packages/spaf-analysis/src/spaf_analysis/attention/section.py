"""The section of the report on attention between the genes of neighbouring cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from spaf_analysis.attention.plot import attention
from spaf_analysis.attention.tool import sentence
from spaf_analysis.keys import ATTENTION
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.words import plain_rows


@dataclass(frozen=True)
class AttentionSection(Section):
    """Attention after its controls, where `spaf_analysis.tl.attention` has written it.

    Attributes
    ----------
    stored
        What was written; None where nothing was.
    """

    stored: dict[str, Any] | None
    figures: tuple[Picture, ...]

    anchor = "attention"
    title = "Attention between the genes of neighbours"
    doing = "drawing attention between genes"
    template = """
{% if section.stored is none %}
<p class="note">Attention was not read; for a model that reads two cells as one sequence,
<code>spaf-analysis attention CELLS.h5ad --model MODEL --cell-type COLUMN --left A --right B -o CELLS_WITH.h5ad</code>
does it.</p>
{% else %}
<p>{{ said }} In <i>left to right</i>, genes of the left cells look at genes of the right ones.</p>
{{ show(section.figures) }}
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Read what was written and draw it."""
        stored = context.adata.uns.get(ATTENTION)
        if stored is None:
            return cls(None, ())
        points, _ = attention(context.adata)
        picture = Picture.of(
            points,
            "Attention in pairs of cells against that in shuffled pairs, and the variance that controls explain.",
            "Blue: called against shuffled pairs of cells. Bars: share of variance that each control explains.",
        )
        return cls(dict(stored), (picture,))

    def numbers(self) -> dict[str, Any]:
        """Return how many gene pairs were tested and called, and what the controls explain."""
        if self.stored is None:
            return {}
        shares = plain_rows(pd.DataFrame(self.stored["controls"]))
        return {"attention": {name: self.stored[name] for name in ("n_tested", "n_called")} | {"controls": shares}}

    def view(self) -> dict[str, Any]:
        """Return the result in a sentence."""
        return {} if self.stored is None else {"said": sentence(self.stored)}

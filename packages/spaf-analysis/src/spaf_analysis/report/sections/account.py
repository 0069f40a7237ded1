"""The section of the report on what was read, dropped and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from spaf_analysis.plots.charts import account_bars
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.tables import embedded_cells

_BARS = {
    "transcripts": {
        "kept, in analysed cells": "binned",
        "kept, in cells too small": "in_small_cells",
        "in no cell": "unassigned",
        "low quality": "low_quality",
        "control probes": "controls",
    },
    "cells": {"analysed": "kept_cells", "too few transcripts": "small_cells"},
}
# Rows of the account: kind, name, key, what became of them.
_ROWS = (
    ("Transcripts", "read from the run", "read", "all"),
    ("Transcripts", "control probes and codewords", "controls", "dropped"),
    ("Transcripts", "low quality (below the quality threshold)", "low_quality", "dropped"),
    ("Transcripts", "in no cell", "unassigned", "dropped"),
    ("Transcripts", "in cells with too few transcripts", "in_small_cells", "dropped"),
    ("Transcripts", "in analysed cells", "binned", "kept"),
    ("Cells", "with at least one transcript", "cells", "all"),
    ("Cells", "with too few transcripts", "small_cells", "dropped"),
    ("Cells", "analysed", "kept_cells", "kept"),
)


@dataclass(frozen=True)
class AccountSection(Section):
    """What was read, dropped and kept.

    Attributes
    ----------
    account
        Number of each, summed over the slides; empty where the build left none.
    n_not_embedded
        Cells without an embedding.
    """

    account: dict[str, int]
    n_not_embedded: int
    figures: tuple[Picture, ...]

    anchor = "account"
    title = "What went in, what was dropped"
    template = """
{% if rows %}
<p>A transcript is dropped for the first reason that applies. Everything below is computed from what was kept.</p>
{{ show(section.figures, "wide") }}
<table>
<thead><tr><th class="text">What</th><th class="text">Fate</th><th>Number</th><th>Share</th></tr></thead>
<tbody>
{% for row in rows %}
{% if loop.changed(row.kind) %}
<tr class="group"><td class="text" colspan="4">{{ row.kind }}</td></tr>
{% endif %}
<tr class="{{ row.fate }}"><td class="text">{{ row.name }}</td>
<td class="text">{{ row.fate if row.fate != "all" else "" }}</td>
<td>{{ row.n | count }}</td><td>{{ row.share | figure(1) }} %</td></tr>
{% endfor %}
</tbody>
</table>
{% else %}
<p>The build left no account of what was dropped.</p>
{% endif %}
{% if section.n_not_embedded %}
<p>{{ section.n_not_embedded | count }} cells hold no gene that the model knows and have no embedding.</p>
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Draw the shares of what was read, dropped and kept."""
        _, embedded = embedded_cells(context.adata, context.options.key)
        account = context.inputs.account
        return cls(account, context.adata.n_obs - len(embedded), _pictures(account))

    def numbers(self) -> dict[str, Any]:
        """Return the account."""
        return {"account": self.account}

    def view(self) -> dict[str, Any]:
        """Return rows with shares of what was read; only what is known."""
        account = self.account
        totals = {"Transcripts": account.get("read", 0), "Cells": account.get("cells", 0)}
        rows = [
            {
                "kind": kind,
                "name": name,
                "n": account[key],
                "share": 100 * account[key] / max(totals[kind], 1),
                "fate": fate,
            }
            for kind, name, key, fate in _ROWS
            if key in account
        ]
        return {"rows": rows}


def _pictures(numbers: dict[str, int]) -> tuple[Picture, ...]:
    bars = {
        kind: [(name, numbers[key]) for name, key in parts.items() if numbers.get(key)] for kind, parts in _BARS.items()
    }
    bars = {kind: parts for kind, parts in bars.items() if parts}
    if not bars:
        return ()
    alt = "; ".join(f"{kind}: " + ", ".join(f"{name} {n:,}" for name, n in parts) for kind, parts in bars.items())
    return (Picture.of(account_bars(bars), alt, "Where the transcripts and cells of the run went."),)

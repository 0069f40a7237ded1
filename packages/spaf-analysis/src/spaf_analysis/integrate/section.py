"""The section of the report on integration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from spaf_analysis.errors import InputError
from spaf_analysis.integrate.plot import TITLES, integration
from spaf_analysis.integrate.tool import OURS, integrate
from spaf_analysis.keys import INTEGRATION, SLIDE
from spaf_analysis.report.section import Context, Picture, Section
from spaf_analysis.report.words import plain_rows

_SHOWN = ("nmi", "ari", "purity", "graph_connectivity", "cilisi", "ilisi", "pcr")
_FOR_COMPARISON = ("isolated", "avg_bio", "avg_batch")


@dataclass(frozen=True)
class IntegrationSection(Section):
    """How well batches are mixed and identity is kept.

    Attributes
    ----------
    scores, overall
        Of `Integration`; without rows where there is nothing to integrate.
    notes
        What was left out.
    unit
        What is drawn for the intervals.
    batch
        The column of `obs` with the batches.
    reason
        Why there are no scores, as the end of a sentence; empty where there are.
    """

    scores: pd.DataFrame
    overall: pd.DataFrame
    notes: tuple[str, ...]
    unit: str
    batch: str
    reason: str
    figures: tuple[Picture, ...]

    anchor = "integration"
    title = "Slides together"
    doing = "integrating slides"
    template = """
{% if section.reason %}
<p class="note">Nothing was integrated: {{ section.reason }}.</p>
{% else %}
<p>Batches are the values of {{ section.batch }}. Identity (NMI and ARI at the best of a grid of resolutions, purity of
the nearest neighbours) should be high, and within a label batches mixed (CiLISI); a method that mixes at the cost of
identity integrates nothing, as random numbers show. Intervals are 95 % over resampled {{ section.unit }}.</p>
{% for note in section.notes %}<p>{{ note }}</p>{% endfor %}
{{ show(section.figures) }}
<div class="scroll"><table>
<thead><tr><th class="text">Method</th>{% for name in shown %}<th>{{ titles[name] }}</th>{% endfor %}
<th class="text">Against PCA</th></tr></thead>
<tbody>
{% for row in section.scores.to_dict(orient="records") %}
<tr><td class="text">{{ row.method }}</td>
{% for name in shown %}<td>{{ row[name] | figure(3) }}<span class="interval">{{ row[name + "_low"] | figure(3) }} to
{{ row[name + "_high"] | figure(3) }}</span></td>{% endfor %}
<td class="text">{{ verdicts.get(row.method, "") }}</td></tr>
{% endfor %}
</tbody>
</table></div>
{% if compared %}
<details><summary>For comparison with papers: what rests on silhouettes, which judge nothing</summary>
<table><thead><tr><th class="text">Method</th>{% for name in compared %}<th>{{ titles[name] }}</th>{% endfor %}</tr>
</thead><tbody>
{% for row in section.scores.to_dict(orient="records") %}
<tr><td class="text">{{ row.method }}</td>
{% for name in compared %}<td>{{ row[name] | figure(3) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></details>
{% endif %}
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Integrate the batches that the options or the slides name, where there are several."""
        adata, options = context.adata, context.options
        batch = options.batch or SLIDE
        nothing = pd.DataFrame()
        try:
            integrate(
                adata, batch=batch, label=options.cell_type, key=options.key, n_replicates=options.n_replicates,
                seed=options.seed,
            )  # fmt: skip
        except InputError as error:
            return cls(nothing, nothing, (), "", batch, str(error).rstrip("."), ())
        stored = adata.uns[INTEGRATION]
        figures: tuple[Picture, ...] = ()
        if options.cell_type is not None:
            picture = Picture.of(
                integration(adata), f"Identity against mixing of {len(stored['scores'])} embeddings.",
                "Up: what a cell is is kept. Right: batches are mixed within labels.",
            )  # fmt: skip
            figures = (picture,)
        return cls(stored["scores"], stored["overall"], tuple(stored["notes"]), stored["unit"], batch, "", figures)

    def numbers(self) -> dict[str, Any]:
        """Return the scores."""
        return {"integration": plain_rows(self.scores)}

    def sentences(self) -> tuple[str, ...]:
        """Say how the embedding compares with PCA."""
        said = self._verdicts().get(OURS)
        return () if said is None else (f"For integration the embedding is, against PCA: {said}.",)

    def view(self) -> dict[str, Any]:
        """Return what is shown."""
        return {
            "shown": [name for name in _SHOWN if name in self.scores],
            "compared": [name for name in _FOR_COMPARISON if name in self.scores],
            "titles": TITLES,
            "verdicts": self._verdicts(),
        }

    def _verdicts(self) -> dict[str, str]:
        if not len(self.overall):
            return {}
        rows = self.overall[self.overall["baseline"] == "PCA"]
        return dict(zip(rows["method"].astype(str), rows["verdict"].astype(str), strict=True))

"""The section of the report on versions, parameters and time of every step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from spaf_analysis.records import Record, own_record
from spaf_analysis.report.section import Context, Section
from spaf_analysis.report.words import number


@dataclass(frozen=True)
class ProvenanceSection(Section):
    """Versions, parameters and time.

    Attributes
    ----------
    records
        Build, pretrain, embed, commands whose results are in the table, and report.
    card
        The model's card, in Markdown.
    """

    records: tuple[Record, ...]
    card: str

    anchor = "provenance"
    title = "Versions, parameters, time"
    template = """
<table>
<thead><tr><th class="text">Step</th><th class="text">Command</th><th>Time</th><th>Peak memory</th></tr></thead>
<tbody>
{% for record in section.records %}
<tr><td class="text">{{ record.stage }}</td><td class="text"><code>{{ record.command }}</code></td>
<td>{{ record.seconds | duration }}</td><td>{{ record.peak_rss_mb | figure(0) }} MB</td></tr>
{% endfor %}
</tbody>
</table>
{% for record in section.records %}
<details>
<summary>{{ record.stage | capitalize }}: versions and parameters</summary>
<table>
<tbody>
{% for name, value in record.versions.items() %}
<tr><th class="text" scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
{% for name, value in record.parameters.items() %}
<tr><th class="text" scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody>
</table>
</details>
{% endfor %}
{% if section.card %}
<details>
<summary>Model card</summary>
<pre>{{ section.card }}</pre>
</details>
{% endif %}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Read the records of the stages and add that of the report, which ends here."""
        parameters = dataclasses.asdict(context.options) | context.chosen()
        own = own_record("spaf-analysis report", parameters, started=context.started)
        return cls((*context.inputs.records, own), context.inputs.model.card)

    def numbers(self) -> dict[str, Any]:
        """Return time and memory of each step."""
        memory = {record.stage: number(record.peak_rss_mb, 1) for record in self.records}
        return {
            "seconds": {record.stage: number(record.seconds, 3) for record in self.records},
            "peak_rss_mb": max((value for value in memory.values() if value is not None), default=None),
            "peak_rss_mb_per_step": memory,
        }

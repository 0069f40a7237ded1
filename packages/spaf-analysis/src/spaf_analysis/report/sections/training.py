"""The section of the report on how training went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from markupsafe import Markup

from spaf_analysis.plots.charts import learning_curves
from spaf_analysis.report.section import Context, Picture, Section, link


@dataclass(frozen=True)
class TrainingSection(Section):
    """Learning curves, and what was not learnt.

    Attributes
    ----------
    not_learnt
        A sentence for each objective of which training has learnt nothing.
    left_out
        Objectives that the data could not be asked, and why.
    fit
        What the run says of a model that is fitted and not trained step by step; empty for others.
    objectives
        How each stands beside chance and its baseline.
    nothing_learnt
        A sentence where that is all of them.
    """

    not_learnt: dict[str, str]
    left_out: dict[str, str]
    fit: dict[str, Any]
    objectives: dict[str, dict[str, Any]]
    nothing_learnt: str
    figures: tuple[Picture, ...]

    anchor = "training"
    title = "How training went"
    template = """
{% if section.nothing_learnt %}
<p class="note"><b>{{ section.nothing_learnt }}</b></p>
{% endif %}
{% if section.fit %}
<p>The model was fitted in one go, by the closed form of what cells share with their neighbours
{%- if section.fit.loss is defined and section.fit.loss is not none %} and a small network beside it{% endif %};
there are no curves to show. Its card, under “Versions, parameters, time”, says which recipe was chosen for these data
and why.</p>
{% if section.fit.fallback %}
<p class="note">{{ section.fit.fallback }}</p>
{% endif %}
{% else %}
<p>The model learns up to three tasks at once: to name genes that were masked in a cell’s list (<i>masked genes</i>), to
tell which genes sit together inside a cell (<i>gene co-localisation</i>), and to tell pairs of neighbouring cells from
pairs that are not (<i>cell pairs</i>).
{% for name, reason in section.left_out.items() %}
The task {{ name }} was left out: {{ reason }}.
{% endfor %}
</p>
{% endif %}
{% if section.objectives %}
<table>
<tr><th>task</th><th>loss</th><th>at chance</th><th>AUROC (chance .5)</th><th>baseline</th><th>learnt</th></tr>
{% for name, found in section.objectives.items() %}
<tr><td>{{ name }}</td>
<td>{% if found.explained is defined %}explains {{ "%.3f" % found.explained }}
{%- elif found.loss is defined %}{{ "%.3f" % found.loss }}{% endif %}</td>
<td>{% if found.chance is defined and found.chance is not none %}{{ "%.3f" % found.chance }}{% endif %}</td>
<td>{% if found.auroc is defined %}{{ "%.3f" % found.auroc }}{% endif %}</td>
<td>{% if found.baseline is defined %}{{ found.baseline }}
{% for name in ("baseline_auroc", "baseline_loss", "baseline_explained") if found[name] is defined -%}
{{ "%.3f" % found[name] }}{% endfor %}{% endif %}</td>
<td>{{ "yes" if found.learnt else "no" }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% if section.not_learnt %}
<div class="note">
<b>What was not learnt</b>
<ul>
{% for sentence in section.not_learnt.values() %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
</div>
{% endif %}
{{ show(section.figures, "wide") }}
"""

    @classmethod
    def compute(cls, context: Context) -> Self:
        """Draw the learning curves."""
        inputs = context.inputs
        metrics = inputs.metrics
        if metrics.empty:
            return cls(inputs.not_learnt, inputs.left_out, inputs.fit, inputs.objectives, inputs.nothing_learnt, ())
        validation = metrics[metrics["split"] == "validation"]
        change = ""
        if len(validation) > 1:
            first, best = validation["loss"].iloc[0], validation["loss"].min()
            change = f" Validation loss went from {first:.2f} to {best:.2f} at best."
        picture = Picture.of(
            learning_curves(metrics, best_step=inputs.best_step),
            f"Learning curves over {int(metrics['step'].max()):,} steps.{change}",
            "Training (grey) and validation (blue) over the steps of training. Lower losses and higher shares and "
            "AUROCs are better; a validation loss that rises while the training loss falls is over-fitting.",
        )
        return cls(inputs.not_learnt, inputs.left_out, inputs.fit, inputs.objectives, inputs.nothing_learnt, (picture,))

    def numbers(self) -> dict[str, Any]:
        """Return what was not learnt, and why less was fitted than was asked for."""
        return {
            "not_learnt": dict(self.not_learnt),
            "objectives": self.objectives,
            "fallback": str(self.fit.get("fallback", "")),
        }

    def sentences(self) -> tuple[str, ...]:
        """Say that something was not learnt."""
        if self.nothing_learnt:
            return (Markup("{} {}").format(self.nothing_learnt, link(self.anchor, "How training went")),)
        if not self.not_learnt:
            return ()
        where = link(self.anchor, "how training went")
        return (
            Markup("Of {} of its training tasks the model has learnt nothing: see {}.").format(
                len(self.not_learnt), where
            ),
        )

"""What the best weights of a run have learnt: each objective beside chance and its baseline, in words too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spaf_train.objectives.base import Verdict


def figures_of(verdict: Verdict) -> dict[str, Any]:
    """Return whether something was learnt, and the figures behind it where the verdict has some."""
    figures = getattr(verdict, "figures", None)
    return {"learnt": bool(verdict.learnt)} | (figures() if figures is not None else {})


def nothing_learnt(verdicts: Mapping[str, Mapping[str, Any]], not_learnt: Mapping[str, str], *, steps: int) -> str:
    """Return a sentence for a run that has learnt nothing, with what to change; "" where something was learnt.

    Parameters
    ----------
    verdicts
        `figures_of` each objective that was judged.
    not_learnt
        A sentence for each objective of which nothing was learnt, those that were never asked among them.
    steps
        That the run took.
    """
    if not not_learnt or any(found["learnt"] for found in verdicts.values()):
        return ""
    return (
        f"This run has learnt nothing in {steps:,} steps ({', '.join(not_learnt)}): do not use the model. For slides "
        "of your own use the preset tissue (spaf-train pretrain tissue), which takes seconds to minutes; or take more "
        "steps (run.steps), or a larger radius of neighbours (sampling.radius)."
    )


def spoken(name: str, found: Mapping[str, Any]) -> str:
    """Return a line of how an objective stands, for the screen."""
    figures = []
    if "loss" in found:
        figures.append(f"loss {found['loss']:.3f}" + (f" (chance {found['chance']:.3f})" if "chance" in found else ""))
    if "auroc" in found:
        figures.append(f"AUROC {found['auroc']:.3f} (chance 0.500)")
    if "baseline_auroc" in found:
        figures.append(f"{found['baseline']} {found['baseline_auroc']:.3f}")
    said = f": {', '.join(figures)}" if figures else ""
    return f"{name} {'was learnt' if found['learnt'] else 'was NOT learnt'}{said}."


def table_of(verdicts: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> list[str]:
    """Return the lines of a table of what was learnt: loss and AUROC of each objective, beside chance and baseline."""
    if not verdicts:
        return []
    lines = [
        "| objective | loss | at chance | AUROC | at chance | baseline | learnt |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in verdicts.items():
        baseline = found.get("baseline")
        beside = "-" if baseline is None else f"{found['baseline_auroc']:.3f} ({baseline})"
        chance = "-" if found.get("auroc") is None else "0.500"
        lines.append(
            f"| {titles.get(name, name)} | {_number(found.get('loss'))} | {_number(found.get('chance'))} | "
            f"{_number(found.get('auroc'))} | {chance} | {beside} | {'yes' if found['learnt'] else '**no**'} |"
        )
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

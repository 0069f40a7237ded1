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
    if "explained" in found:
        figures.append(f"explains {found['explained']:.3f} of what the mean of each gene leaves")
    if "auroc" in found:
        figures.append(f"AUROC {found['auroc']:.3f} (chance 0.500)")
    if beside(found) is not None:
        figures.append(f"{found['baseline']} {beside(found):.3f}")
    said = f": {', '.join(figures)}" if figures else ""
    less = f", yet {found['baseline']} does better without training" if found["learnt"] and is_beaten(found) else ""
    return f"{name} {'was learnt' if found['learnt'] else 'was NOT learnt'}{less}{said}."


def beside(found: Mapping[str, Any]) -> float | None:
    """Return the figure of the baseline, by what it is compared; None where there is no baseline."""
    for name in ("baseline_auroc", "baseline_loss", "baseline_explained"):
        if name in found:
            return float(found[name])
    return None


def is_beaten(found: Mapping[str, Any]) -> bool:
    """Whether the baseline, which needs no training, is at least as good."""
    if "baseline_auroc" in found and "auroc" in found:
        return bool(found["baseline_auroc"] >= found["auroc"])
    if "baseline_explained" in found:
        return bool(found["baseline_explained"] >= found["explained"])
    return "baseline_loss" in found and bool(found["baseline_loss"] <= found["loss"])


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
        figure = "-" if baseline is None else f"{beside(found):.3f} ({baseline})"
        chance = "-" if found.get("auroc") is None else "0.500"
        lines.append(
            f"| {titles.get(name, name)} | {_loss(found)} | {_number(found.get('chance'))} | "
            f"{_number(found.get('auroc'))} | {chance} | {figure} | {_answer(found)} |"
        )
    return lines


def _answer(found: Mapping[str, Any]) -> str:
    if not found["learnt"]:
        return "**no**"
    return "yes, below the baseline" if is_beaten(found) else "yes"


def _loss(found: Mapping[str, Any]) -> str:
    """Return the loss or, of an objective that is told by it, the share of what the mean of each gene leaves."""
    return f"explains {found['explained']:.3f}" if "explained" in found else _number(found.get("loss"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

"""Tables of ``results/architectures.json``: differences with intervals, and what the scaling curve extrapolates to."""

import math
from typing import Any

import numpy as np
from tissue import difference

Rows = dict[str, dict[str, Any]]
_DRAWS = 2_000


def over_seeds(jobs: Rows, slide: str, name: str, times: float) -> dict[str, Any] | None:
    """Return a row with its scores, draw by draw, averaged over the seeds that are done."""
    found = [row for key, row in jobs.items() if key.rpartition("|")[0] == f"{slide}|{name}|{times:g}"]
    if not found:
        return None
    scores = {kind: np.mean([row["scores"][kind] for row in found], axis=0) for kind in found[0]["scores"]}
    f1 = None if found[0]["f1"] is None else float(np.mean([row["f1"] for row in found]))
    steps = "/".join(str(row["steps"]) for row in found)
    return {"scores": scores, "f1": f1, "n_seeds": len(found), "steps": steps}


def compared(jobs: Rows, seconds: float) -> list[str]:
    """Return a Markdown table of every row of every slide, beside the perceptron at the single time."""
    lines = [
        "| slide | model | CPU seconds (steps) | far | hard | less the perceptron, far | hard | macro-F1 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for slide in dict.fromkeys(key.split("|")[0] for key in jobs if not key.startswith("scaling")):
        peer = over_seeds(jobs, slide, "mlp", 1.0)
        for name, row in jobs.get(f"{slide}|baselines", {}).items():
            cost = f"{row['seconds']:.1f}" if "seconds" in row else ""
            lines.append(_line(slide, name, cost, row, peer))
        for name, times in dict.fromkeys(
            (key.split("|")[1], float(key.split("|")[2]))
            for key in jobs
            if key.startswith(f"{slide}|") and not key.endswith("baselines")
        ):
            row = over_seeds(jobs, slide, name, times)
            assert row is not None
            lines.append(_line(slide, name, f"{times * seconds:g} ({row['steps']})", row, peer))
    return lines


def _line(slide: str, name: str, cost: str, row: dict[str, Any], peer: dict[str, Any] | None) -> str:
    scores = {kind: np.asarray(values) for kind, values in row["scores"].items()}
    less = {"far": "", "hard": ""}
    if peer is not None and row is not peer:
        for kind, (value, low, high) in difference(scores, peer["scores"]).items():
            less[kind] = f"{value:+.3f} ({low:+.3f}, {high:+.3f})"
    f1 = "" if row["f1"] is None else f"{row['f1']:.3f}"
    far, hard = (f"{scores[kind][0]:.3f}" for kind in ("far", "hard"))
    return f"| {slide} | {name} | {cost} | {far} | {hard} | {less['far']} | {less['hard']} | {f1} |"


def power_law(seconds: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Return exponent b and factor a of ``loss = a * seconds ** b``, least squares of the logarithms."""
    b, log_a = np.polyfit(np.log(seconds), np.log(losses), 1)
    return float(b), float(math.exp(log_a))


def scaling(jobs: Rows) -> list[str]:
    """Say for each number of cells how the held-out contrast falls with time, and when it would be the perceptron's."""
    lines = [
        "| cells | model | parameters | held-out contrast at each look | exponent (95 %) | seconds to the perceptron's "
        "best (95 %) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows = {
        key.split("|")[1:][0] + "|" + key.split("|")[2]: row for key, row in jobs.items() if key.startswith("scaling")
    }
    rng = np.random.default_rng(0)
    for cells in sorted({int(key.split("|")[1]) for key in rows}, reverse=True):
        peer = rows.get(f"mlp|{cells}")
        for key in (key for key in rows if key.endswith(f"|{cells}")):
            name, row = key.split("|")[0], rows[key]
            seconds = np.array([float(second) for second in row["losses"]])
            losses = np.array(list(row["losses"].values()))
            exponent, factor = power_law(seconds, losses)
            fitted = factor * seconds**exponent
            # Residuals of the logarithms, drawn anew; four looks leave two degrees of freedom.
            residual = np.log(losses / fitted) * math.sqrt(len(seconds) / max(len(seconds) - 2, 1))
            drawn = [power_law(seconds, fitted * np.exp(rng.choice(residual, residual.size))) for _ in range(_DRAWS)]
            low, high = np.percentile([b for b, _ in drawn], [2.5, 97.5])
            reached = ""
            if name != "mlp" and peer is not None:
                best = min(peer["losses"].values())
                times = [_reach(b, a, best) for b, a in drawn]
                ends = np.percentile(times, [2.5, 97.5], method="nearest")
                reached = f"{_time(_reach(exponent, factor, best))} ({_time(ends[0])}, {_time(ends[1])})"
            shown = ", ".join(f"{loss:.2f}" for loss in losses)
            lines.append(
                f"| {cells:,} | {name} | {row['n_parameters']:,} | {shown} | {exponent:+.4f} ({low:+.4f}, {high:+.4f}) "
                f"| {reached} |"
            )
    return lines


def _reach(exponent: float, factor: float, loss: float) -> float:
    """Return when a power law comes down to a loss; infinity where it does not fall."""
    if exponent >= 0.0:
        return math.inf
    logarithm = (math.log(loss) - math.log(factor)) / exponent
    return math.exp(logarithm) if logarithm < 700.0 else math.inf


def _time(seconds: float) -> str:
    return (
        "never"
        if not math.isfinite(seconds) or seconds > 1e12
        else f"{seconds:,.0f}"
        if seconds < 1e5
        else f"{seconds:.0e}"
    )

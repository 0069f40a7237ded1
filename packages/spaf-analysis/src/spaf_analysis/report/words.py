"""Numbers written out, in pages and in JSON."""

import math
from typing import Any

from spaf_analysis.metrics import Interval


def interval_text(interval: Interval, *, signed: bool = False) -> str:
    """Write a value and its 95 % interval, such as "0.772 (0.741 to 0.803)"."""
    value = number_text(interval.value, signed=signed)
    if not math.isfinite(interval.low):
        return f"{value} (too little tissue for an interval)"
    return f"{value} ({number_text(interval.low, signed=signed)} to {number_text(interval.high, signed=signed)})"


def number_text(value: float, *, signed: bool = False) -> str:
    """Write three decimals, with a sign for differences."""
    return f"{value:+.3f}".replace("-", "−") if signed else f"{value:.3f}"


def count(value: float) -> str:
    """Write a whole number, with commas."""
    return f"{int(value):,}"


def figure(value: float, digits: int = 1) -> str:
    """Write so many decimals; a dash for what is not finite."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "–"


def small(value: float) -> str:
    """Write a probability: plain where it can be read, a bound where it is tiny."""
    if not math.isfinite(value):
        return "–"
    return "< 1e-15" if value < 1e-15 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Write a time."""
    if not math.isfinite(seconds):
        return "–"
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def number(value: float, digits: int = 6) -> float | None:
    """Round for JSON; None for what is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None


def plain_rows(table: Any) -> list[dict[str, Any]]:
    """Return the rows of a table for JSON."""
    return [
        {str(name): number(value) if isinstance(value, float) else value for name, value in row.items()}
        for row in table.to_dict(orient="records")
    ]


def interval_entry(name: str, interval: Interval | None) -> dict[str, Any]:
    """Return a value and its interval for JSON."""
    if interval is None:
        return {name: None, f"{name}_interval": None}
    low, high = number(interval.low), number(interval.high)
    return {name: number(interval.value), f"{name}_interval": None if low is None else [low, high]}

"""Checks of option values that several configurations share."""

from __future__ import annotations

from spaf_model import InputError


def require(condition: bool, message: str) -> None:
    """Raise InputError with a message unless the condition holds."""
    if not condition:
        raise InputError(message)


def require_fraction(name: str, value: float) -> None:
    """Raise InputError unless a value is between 0 and 1."""
    require(0.0 <= value <= 1.0, f"{name} must be between 0 and 1, not {value}.")


def require_at_least(name: str, value: float, least: float) -> None:
    """Raise InputError unless a value is a number of at least a bound; NaN is not."""
    require(value >= least, f"{name} must be at least {least}, not {value}.")

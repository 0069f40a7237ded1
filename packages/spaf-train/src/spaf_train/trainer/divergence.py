"""The error of a run whose loss or gradient is not finite."""

from __future__ import annotations


class TrainingDivergedError(RuntimeError):
    """A loss or a gradient is not finite; the message says which, where, and what to do."""

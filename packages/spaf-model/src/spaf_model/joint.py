"""Named parts, each centred on its slide and of one size, side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


def centred(part: Rows) -> Rows:
    """Return a part (n_cells, k) of one slide less its mean there."""
    centred_part: Rows = part - part.mean(axis=0, dtype=np.float64).astype(np.float32)
    return centred_part


def size_of(parts: list[Rows]) -> float:
    """Return the root mean squared norm of a centred part, over the cells of all slides."""
    square = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
    return float(np.sqrt(square / max(sum(len(part) for part in parts), 1) + 1e-12))


def unit(part: Rows) -> Rows:
    """Return a part of one slide, centred there and with mean squared norm 1."""
    part = centred(part)
    return part / np.float32(size_of([part]))

"""What should be known of labels before they are believed: their spelling, rare classes, and classes without a cell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spaf_analysis.annotate.compute import Annotation

RARE = 10  # cells
_SHOWN = 10


def spelling_variants(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return names that differ in case, spaces, hyphens and underscores alone, as they would by mistake.

    Examples
    --------
    >>> spelling_variants(["B cell", "T cell", "t_cell", "T-Cell"])
    [('T cell', 't_cell', 'T-Cell')]
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"[\s_\-]+", "", name).casefold(), []).append(name)
    return [tuple(found) for found in alike.values() if len(found) > 1]


def spelling_sentence(names: Sequence[str], column: str) -> str:
    """Say which labels of a column are probably one; "" where none are."""
    found = spelling_variants(names)
    if not found:
        return ""
    said = "; ".join(" and ".join(map(repr, variants)) for variants in found[:_SHOWN])
    return (
        f"Labels of {column!r} that differ in case, spaces, hyphens or underscores alone are classes of their own "
        f"here: {said}. Spell them alike if they mean the same."
    )


def notes_of(
    found: Annotation, codes: NDArray[np.int64], folds: NDArray[np.int64], label: str
) -> list[str]:  # fmt: skip
    """Return sentences on the classes of a reference and what the query got of them."""
    notes = [spelling_sentence(found.classes, label)]
    n_cells = np.bincount(codes[codes >= 0], minlength=len(found.classes))
    rare = [f"{name} ({n})" for name, n in zip(found.classes, n_cells, strict=True) if n < RARE]
    if rare:
        notes.append(f"Classes with fewer than {RARE} cells in the reference are hardly learnt: {_list(rare)}.")
    alone = [
        name for number, name in enumerate(found.classes)
        if n_cells[number] >= RARE and np.unique(folds[codes == number]).size == 1
    ]  # fmt: skip
    if alone:
        notes.append(
            "Classes that lie in one held-out part alone are missed when it is held out, which says nothing of the "
            f"query: {_list(alone)}."
        )
    given = np.bincount(found.codes[found.codes >= 0], minlength=len(found.classes))
    absent = [name for name, n in zip(found.classes, given, strict=True) if not n]
    if absent and len(found.codes):
        notes.append(f"No cell of the query is called: {_list(absent)}.")
    return [note for note in notes if note]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

"""At what distances two cells are neighbours, hard negatives or easy negatives: one object for all who ask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spaf_data import defaults
from spaf_data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Neighbours of a tissue, and what their negatives are: the proportions that a larger radius keeps.


@dataclass(frozen=True, init=False)
class Distances:
    """Distances of the pairs of cells of a corpus, in um.

    Cells at most ``positive`` apart are neighbours; a hard negative is ``hard_min`` to ``hard_max`` away, an easy one
    further than ``easy_min``. A corpus holds the graph of its neighbours and stores these distances in its manifest;
    whatever reads the corpus takes them from there.

    Parameters
    ----------
    positive
        Radius of neighbours, in um.
    hard_min, hard_max, easy_min
        In um. What is None follows: 80, 150 and 150 um for a radius of up to 30 um, and of a larger radius the same
        multiples (2.67 and 5 times), so that a hard negative is never a neighbour.

    Raises
    ------
    InputError
        If they are not finite or contradict each other: ``0 < positive < hard_min < hard_max`` and
        ``hard_min <= easy_min``.

    Examples
    --------
    >>> Distances()
    Distances(positive=30.0, hard_min=80.0, hard_max=150.0, easy_min=150.0)
    >>> Distances(positive=120.0)
    Distances(positive=120.0, hard_min=320.0, hard_max=600.0, easy_min=600.0)
    >>> Distances(positive=120.0, hard_min=80.0)
    Traceback (most recent call last):
        ...
    spaf_data.errors.InputError: hard_min must be above the radius of neighbours (120 um), not 80 um
    """

    positive: float
    hard_min: float
    hard_max: float
    easy_min: float

    def __init__(
        self,
        *,
        positive: float = defaults.RADIUS,
        hard_min: float | None = None,
        hard_max: float | None = None,
        easy_min: float | None = None,
    ) -> None:
        given = {"hard_min": hard_min, "hard_max": hard_max, "easy_min": easy_min}
        for name, value in given.items():
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name} must be a finite number of um, not {value:g}")
        if not 0 < positive < float("inf"):
            raise InputError(f"the radius of neighbours must be above 0 um, not {positive:g} um")
        scale = max(1.0, positive / defaults.RADIUS)
        hard_max = defaults.HARD_MAX * scale if hard_max is None else hard_max
        values = {
            "positive": positive,
            "hard_min": defaults.HARD_MIN * scale if hard_min is None else hard_min,
            "hard_max": hard_max,
            "easy_min": max(defaults.EASY_MIN * scale, hard_max) if easy_min is None else easy_min,
        }
        for name, length in values.items():
            object.__setattr__(self, name, float(length))
        self._check()

    def _check(self) -> None:
        if not self.hard_min > self.positive:
            raise InputError(
                f"hard_min must be above the radius of neighbours ({self.positive:g} um), not {self.hard_min:g} um"
            )
        if not self.hard_max > self.hard_min:
            raise InputError(
                f"hard_max must be above hard_min ({self.hard_min:g} um), not {self.hard_max:g} um; give both of them"
            )
        if not self.easy_min >= self.hard_min:
            raise InputError(f"easy_min must be at least hard_min ({self.hard_min:g} um), not {self.easy_min:g} um")

    def changed(
        self,
        *,
        positive: float | None = None,
        hard_min: float | None = None,
        hard_max: float | None = None,
        easy_min: float | None = None,
    ) -> Distances:
        """Return these distances with those that are given in place of the own ones, checked anew.

        Without a bound of its own, easy negatives stay beyond the hard ones.
        """
        hard_max = self.hard_max if hard_max is None else hard_max
        return Distances(
            positive=self.positive if positive is None else positive,
            hard_min=self.hard_min if hard_min is None else hard_min,
            hard_max=hard_max,
            easy_min=max(self.easy_min, hard_max) if easy_min is None else easy_min,
        )

    @classmethod
    def of_manifest(cls, stored: Mapping[str, Any] | None, positive: float) -> Distances:
        """Return the distances of a corpus: those that its manifest stores or, of one of before, those it was made for.

        Corpora were made with a radius alone, and trained on with hard negatives of 80 to 150 um and easy ones beyond,
        which is kept as long as it makes sense.
        """
        if stored is not None:
            return cls(**stored)
        if positive < defaults.HARD_MIN:
            return cls(
                positive=positive, hard_min=defaults.HARD_MIN, hard_max=defaults.HARD_MAX, easy_min=defaults.EASY_MIN
            )
        return cls(positive=positive)

"""The distances that an option may change, beside those of the corpus that a run reads."""

from __future__ import annotations

from spaf_data import Distances
from spaf_data import InputError as DataError
from spaf_model import InputError


def distances_of(
    section: str,
    corpus: Distances | None,
    *,
    radius: float | None = None,
    hard_min: float | None = None,
    hard_max: float | None = None,
    easy_min: float | None = None,
) -> Distances:
    """Return the distances of a corpus with the options of a run in their place, checked together.

    Parameters
    ----------
    section
        Name of the table of options, for messages; "" for none.
    corpus
        Of the corpus; None where it is not known yet, and options are held against each other alone.
    radius, hard_min, hard_max, easy_min
        Options, in um; None is that of the corpus. A radius of its own below that of the corpus keeps the negatives.

    Raises
    ------
    InputError
        If the distances contradict each other or the graph of neighbours that the corpus holds.
    """
    where = f"{section}: " if section else ""
    try:
        if corpus is None:
            positive = Distances().positive if radius is None else radius
            return Distances(positive=positive, hard_min=hard_min, hard_max=hard_max, easy_min=easy_min)
        found = corpus.changed(positive=radius, hard_min=hard_min, hard_max=hard_max, easy_min=easy_min)
    except DataError as error:
        raise InputError(f"{where}{error}.") from error
    if found.positive > corpus.positive:
        raise InputError(
            f"{where}radius must be at most that of the corpus ({corpus.positive:g} um), not {radius:g} um: "
            "only so far its splits are known to be apart (spaf-data build --radius)."
        )
    # A hard negative that the graph of the corpus calls a neighbour is none, whatever the radius of this run.
    if not found.hard_min > corpus.positive:
        raise InputError(
            f"{where}hard_min must be above the radius of neighbours of the corpus ({corpus.positive:g} um), not "
            f"{found.hard_min:g} um."
        )
    return found

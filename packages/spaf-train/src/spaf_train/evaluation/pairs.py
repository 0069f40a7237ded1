"""The cell pairs on which scores are judged: neighbours, each with a hard and an easy negative of the same anchor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaf_data import Distances, easy_negatives, hard_negatives, positive_pairs
from spaf_model import InputError

RADII = (10.0, 20.0, 30.0, 50.0)
NEGATIVES = ("easy", "hard")


def radii_of(distances: Distances) -> tuple[float, ...]:
    """Return the radii (um) at which neighbours of a corpus are judged: its own, and those around it.

    10, 20, 30 and 50 um for neighbours of up to 30 um; of a larger radius the same fractions; none that reaches the
    hard negatives.
    """
    scale = max(1.0, distances.positive / Distances().positive)
    around = {radius * scale for radius in RADII} | {distances.positive}
    return tuple(sorted(radius for radius in around if radius < distances.hard_min))


def check_radii(radii: tuple[float, ...], distances: Distances) -> None:
    """Raise `InputError` where neighbours within a radius could be the hard negatives that they are held against."""
    largest = max(radii)
    if not largest < distances.hard_min:
        raise InputError(
            f"radii must be below the least distance of hard negatives ({distances.hard_min:g} um), not {largest:g} um."
        )


@dataclass(frozen=True)
class MatchedPairs:
    """Pairs of neighbours and, for the same anchor, one cell at a hard and one at an easy distance.

    Attributes
    ----------
    anchor, neighbour
        Indices of the cells of the positive pair.
    distance
        Their distance in um.
    hard, easy
        The anchor's partners in the negative pairs, -1 where there is no cell at such a distance.
    radii
        The radii that the rows serve; for a radius, `rows` says which.
    max_pairs
        The largest number of positive pairs used at one radius.
    """

    anchor: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    distance: NDArray[np.float64]
    hard: NDArray[np.int64]
    easy: NDArray[np.int64]
    radii: tuple[float, ...]
    max_pairs: int

    def __len__(self) -> int:
        return len(self.anchor)

    def rows(self, radius: float, negatives: str) -> NDArray[np.int64]:
        """Return the rows of neighbours within a radius (um) with a negative of the kind ("hard" or "easy")."""
        within = np.flatnonzero(self.distance <= radius)[: self.max_pairs]
        return within[self.partner(negatives)[within] >= 0]

    def partner(self, negatives: str) -> NDArray[np.int64]:
        """Return the anchor's partner in the negative pair of a kind ("hard" or "easy")."""
        return {"hard": self.hard, "easy": self.easy}[negatives]

    def labelled(self, radius: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return both cells of the neighbours within a radius (um) and of their negatives, and which are neighbours."""
        rows = np.flatnonzero(self.distance <= radius)[: self.max_pairs]
        partners = [self.neighbour[rows], self.hard[rows], self.easy[rows]]
        left = np.concatenate([self.anchor[rows]] * len(partners))
        right = np.concatenate(partners)
        labels = np.arange(right.size) < rows.size
        exists = right >= 0
        return left[exists], right[exists], labels[exists]


def can_be_judged(pairs: MatchedPairs) -> bool:
    """Tell whether any pair of neighbours has a negative of any kind."""
    return any(len(pairs.rows(max(pairs.radii), kind)) > 0 for kind in NEGATIVES)


def matched_pairs(
    coordinates: NDArray[np.floating],
    slide: NDArray[np.generic] | None = None,
    *,
    radii: tuple[float, ...] = RADII,
    distances: Distances = Distances(),
    max_pairs: int = 500,
    seed: int = 0,
) -> MatchedPairs:
    """Draw pairs of neighbouring cells and matched negatives.

    Every positive pair gets a hard and an easy negative that share its anchor (one end, by chance), so that positives
    and negatives are balanced 1 : 1 and a cell that resembles everything gains nothing.

    Parameters
    ----------
    coordinates
        Cells x 2, in um.
    slide
        The slide of each cell: pairs never span slides. One slide if None.
    radii
        Largest distances of positive pairs in um. Rows are shared between radii as far as they go.
    distances
        Of hard and easy negatives, such as `Corpus.distances`.
    max_pairs
        Largest number of positive pairs at each radius.
    seed
        Seed of the draws. The same cells give the same pairs in whatever order they come.

    Returns
    -------
    MatchedPairs
        In an order by chance; empty when no two cells are neighbours.

    Raises
    ------
    InputError
        If a radius reaches the hard negatives.

    Examples
    --------
    >>> grid = np.stack(np.meshgrid(np.arange(0, 400, 20), np.arange(0, 400, 20)), axis=-1).reshape(-1, 2)
    >>> pairs = matched_pairs(grid.astype(float), radii=(30.0,), max_pairs=100)
    >>> len(pairs), bool((pairs.distance <= 30).all())
    (100, True)
    """
    check_radii(radii, distances)
    number = np.zeros(len(coordinates), dtype=np.int64)
    if slide is not None:
        number = np.unique(slide, return_inverse=True)[1].astype(np.int64)
    # A corpus holds coordinates in single precision: the same cells give the same pairs from wherever they come.
    rounded = np.asarray(coordinates, dtype=np.float32)
    canonical = np.lexsort((rounded[:, 1], rounded[:, 0], number))
    xy = rounded.astype(np.float64)[canonical]
    number = number[canonical]
    rng = np.random.default_rng(seed)

    pairs = rng.permutation(positive_pairs(xy, max(radii), slide=number), axis=0)
    distance = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    used = np.zeros(len(pairs), dtype=bool)
    for radius in radii:
        used[np.flatnonzero(distance <= radius)[:max_pairs]] = True
    pairs, distance = pairs[used], distance[used]
    end = rng.integers(0, 2, size=len(pairs))
    rows = np.arange(len(pairs))
    anchor, neighbour = pairs[rows, end], pairs[rows, 1 - end]

    anchors, n_rows = np.unique(anchor, return_counts=True)
    per_anchor = int(n_rows.max(initial=1))
    bounds = distances.hard_min, distances.hard_max
    near = hard_negatives(xy, *bounds, per_anchor=per_anchor, seed=seed, anchors=anchors, slide=number)
    far = easy_negatives(xy, distances.easy_min, per_anchor=per_anchor, seed=seed, anchors=anchors, slide=number)
    hard_partner, easy_partner = _partners(anchor, near, rng), _partners(anchor, far, rng)

    def original(index: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(index >= 0, canonical[index], -1).astype(np.int64)

    return MatchedPairs(
        original(anchor),
        original(neighbour),
        distance,
        original(hard_partner),
        original(easy_partner),
        radii,
        max_pairs,
    )


def _partners(anchor: NDArray[np.int64], drawn: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal the negatives drawn for each anchor to its rows, each once and by chance; -1 where they run out."""
    order = np.argsort(anchor, kind="stable")
    rank = np.empty(len(anchor), dtype=np.int64)
    rank[order] = np.arange(len(anchor)) - np.searchsorted(anchor[order], anchor[order])
    dealt = rng.permutation(drawn, axis=0)
    dealt = dealt[np.argsort(dealt[:, 0], kind="stable")]
    position = np.searchsorted(dealt[:, 0], anchor) + rank
    exists = position < np.searchsorted(dealt[:, 0], anchor, side="right")
    partner = np.full(len(anchor), -1, dtype=np.int64)
    partner[exists] = dealt[position[exists], 1]
    return partner

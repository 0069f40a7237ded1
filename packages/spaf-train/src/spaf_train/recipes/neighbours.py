"""Contrast of neighbours: a cell is to be more like its neighbours than like other cells of its tissue."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spaf_data import Distances
from spaf_train._checks import require, require_at_least
from spaf_train.stream.distances import distances_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighboursConfig:
    """Distances of the pairs, and weights of the terms."""

    radius: float | None = None  # um, largest distance of neighbours; None: that of the corpus, as for the next three
    hard_min: float | None = None  # um, least distance of a hard negative
    hard_max: float | None = None  # um, largest distance of a hard negative
    easy_min: float | None = None  # um, beyond which negatives are easy
    easy_weight: float = 1.0  # of telling neighbours from cells far away
    hard_weight: float = 1.0  # of telling them from cells close by
    probability_weight: float = 0.5  # of the probability: neighbours against as many hard and as many easy negatives

    def __post_init__(self) -> None:
        require(self.radius is None or self.radius > 0.0, f"radius must be above 0 um, not {self.radius}.")
        self.distances()  # what contradicts itself is refused before a corpus is read
        for name in ("easy_weight", "hard_weight", "probability_weight"):
            require_at_least(name, getattr(self, name), 0.0)

    def distances(self, corpus: Distances | None = None) -> Distances:
        """Return the distances of the pairs: those given, and else those of the corpus (the usual ones without it).

        Raises
        ------
        InputError
            If what is given contradicts itself or the graph of the corpus.
        """
        return distances_of(
            "neighbours", corpus, radius=self.radius, hard_min=self.hard_min, hard_max=self.hard_max,
            easy_min=self.easy_min,
        )  # fmt: skip

    def following(self, corpus: Distances) -> NeighboursConfig:
        """Return the same with all distances given, those of the corpus where there were none."""
        found = self.distances(corpus)
        return dataclasses.replace(
            self, radius=found.positive, hard_min=found.hard_min, hard_max=found.hard_max, easy_min=found.easy_min
        )

    def weights(self) -> dict[str, float]:
        """Return the weight of each of `neighbour_losses`."""
        return {"easy": self.easy_weight, "hard": self.hard_weight, "probability": self.probability_weight}


@dataclasses.dataclass(frozen=True)
class PairKinds:
    """Which pairs of the cells of a step are of which kind, bool (n_cells, n_cells), symmetric."""

    neighbours: Tensor
    hard: Tensor
    easy: Tensor


def pair_kinds(coordinates: NDArray[np.floating], config: NeighboursConfig) -> PairKinds:
    """Sort all pairs of cells by distance; cells of the same place are neighbours, a cell of itself is not."""
    bounds = config.distances()
    points = torch.from_numpy(np.asarray(coordinates, dtype=np.float64))
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    neighbours = distances <= bounds.positive
    neighbours.fill_diagonal_(False)
    return PairKinds(
        neighbours=neighbours,
        hard=(distances > bounds.hard_min) & (distances <= bounds.hard_max),
        easy=distances > bounds.easy_min,
    )


def contrast(similarity: Tensor, neighbours: Tensor, others: Tensor) -> Tensor:
    """Return the mean over neighbour pairs of the loss of finding the neighbour among the others.

    With s the similarity, the pair (a, b) adds ``-log(e^s_ab / (e^s_ab + sum_c e^s_ac))``, where c runs over the others
    of a (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, equation 4). Other neighbours of a are no
    competitors. Pairs whose anchor has no others are passed over; without any pair the loss is 0.

    Parameters
    ----------
    similarity
        (n_cells, n_cells).
    neighbours, others
        Bool (n_cells, n_cells).
    """
    # What is no competitor counts e^-80 of the strongest one: nothing in the sum, yet a number whose exponential
    # takes a processor a tenth of the time that it takes where it underflows.
    floor = similarity.detach().masked_fill(~others, -1e4).amax(dim=1, keepdim=True) - 80.0
    competition = torch.where(others, similarity, floor).logsumexp(dim=1)
    anchor, partner = (neighbours & others.any(dim=1, keepdim=True)).nonzero(as_tuple=True)
    if anchor.numel() == 0:
        return similarity.sum() * 0.0
    return functional.softplus(competition[anchor] - similarity[anchor, partner]).mean()


def probability_loss(logits: Tensor, kinds: PairKinds) -> Tensor:
    """Return the cross-entropy of the logits, neighbours and hard and easy negatives weighing as 2 : 1 : 1."""
    terms = [
        functional.softplus(sign * logits[kind]).mean()
        for kind, sign in ((kinds.neighbours, -1.0), (kinds.neighbours, -1.0), (kinds.hard, 1.0), (kinds.easy, 1.0))
        if bool(kind.any())
    ]
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0


def neighbour_losses(similarity: Tensor, logits: Tensor, kinds: PairKinds) -> dict[str, Tensor]:
    """Return the losses of telling neighbours from easy and from hard negatives, and of the probability, unweighted.

    Parameters
    ----------
    similarity
        Of all pairs of cells, (n_cells, n_cells).
    logits
        The same, calibrated.
    kinds
        Which pairs are of which kind.
    """
    return {
        "easy": contrast(similarity, kinds.neighbours, kinds.easy),
        "hard": contrast(similarity, kinds.neighbours, kinds.hard),
        "probability": probability_loss(logits, kinds),
    }

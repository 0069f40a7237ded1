"""Contrast of neighbours: a cell is to be more like its neighbours than like other cells of its tissue."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spaf_model import CosinePairs, InputError, SeparatePairs
from spaf_train._checks import require, require_at_least
from spaf_train.objectives.base import Column, Loss, ObjectiveConfig, Scores, Total
from spaf_train.objectives.chance import LEAST_AUROC, auroc_error
from spaf_train.objectives.pair_baseline import NAME, BesideComponents
from spaf_train.objectives.scores import RankedParts, RankedScores, ranked

if TYPE_CHECKING:
    from spaf_data import Distances
    from spaf_model import SpatialFormerNetwork, TokenBatch
    from spaf_train.stream.loader import BatchStream
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw

_TEMPERATURE = 0.2  # of cosines, as in the own-tissue network


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastConfig(ObjectiveConfig):
    """Weights of the terms; distances are those of the sampling."""

    easy_weight: float = 1.0  # of telling neighbours from cells far away
    hard_weight: float = 1.0  # of telling them from cells close by
    probability_weight: float = 0.5  # of the probability: neighbours against as many hard and as many easy negatives

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("easy_weight", "hard_weight", "probability_weight"):
            require_at_least(name, getattr(self, name), 0.0)


@dataclasses.dataclass(frozen=True)
class PairKinds:
    """Which pairs of the cells of a batch are of which kind, bool (n_cells, n_cells), symmetric."""

    neighbours: Tensor
    hard: Tensor
    easy: Tensor
    slide: Tensor  # int64 (n_cells,), from 0: which cells of the batch are of one slide
    baseline: Tensor | None = None  # float32 (n_cells, n_cells): what ranks pairs without training, in validation

    @property
    def weight(self) -> float:
        """1 for a batch with neighbours, whose loss is a mean over its pairs; 0 for one without."""
        return float(bool(self.neighbours.any()))

    def to(self, device: torch.device) -> PairKinds:
        """Return the same on another device."""
        near, hard, easy, slide = (one.to(device) for one in (self.neighbours, self.hard, self.easy, self.slide))
        return PairKinds(near, hard, easy, slide, None if self.baseline is None else self.baseline.to(device))


def pair_kinds(
    coordinates: NDArray[np.floating], distances: Distances, slide: NDArray[np.integer] | None = None
) -> PairKinds:
    """Sort all pairs of cells by distance; cells of the same place are neighbours, a cell of itself is not.

    Parameters
    ----------
    coordinates
        (n_cells, 2), um.
    distances
        Bounds of the kinds.
    slide
        That of each cell; two cells of different slides are no pair of any kind. None: all are of one.
    """
    points = torch.from_numpy(np.asarray(coordinates, dtype=np.float64))
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    of_cell = torch.zeros(len(points), dtype=torch.int64)
    if slide is not None:
        of_cell = torch.from_numpy(np.unique(slide, return_inverse=True)[1])
        apart = apart.masked_fill(of_cell[:, None] != of_cell[None], math.nan)
    neighbours = apart <= distances.positive
    neighbours.fill_diagonal_(False)
    return PairKinds(
        neighbours=neighbours,
        hard=(apart > distances.hard_min) & (apart <= distances.hard_max),
        easy=apart > distances.easy_min,
        slide=of_cell,
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


def require_separate(name: str, model: Any, sampling: SamplingConfig) -> None:
    """Refuse, for an objective of a name, models that read two cells as one, and inputs of two cells."""
    from spaf_train.stream.samplers import SAMPLERS

    require(
        getattr(model, "pair_input", "separate") == "separate",
        f"objectives.{name} needs model.pair_input = separate: each cell is read alone.",
    )
    require(
        SAMPLERS[sampling.input].cells_per_input == 1,
        f"objectives.{name} needs inputs of single cells, such as sampling.input = patches.",
    )


def separate_head(network: SpatialFormerNetwork) -> SeparatePairs | CosinePairs:
    """Return the head that compares cells which were read apart."""
    assert isinstance(network.pair_head, SeparatePairs | CosinePairs), "checked by `require_separate`"
    return network.pair_head


def centred(states: Tensor, slide: Tensor) -> Tensor:
    """Return states (n_cells, D) less the mean of the cells of the batch that are of the same slide."""
    sums = states.new_zeros(int(slide.max()) + 1, states.shape[1]).index_add(0, slide, states)
    return states - (sums / slide.bincount().unsqueeze(1))[slide]


def similarities(network: SpatialFormerNetwork, states: Tensor, slide: Tensor) -> tuple[Tensor, Tensor]:
    """Return what contrast ranks all pairs of cells by, and what the pair head does, (n_cells, n_cells) each.

    They are one unless the model has a projection for contrast alone: there contrast ranks by cosine over temperature.
    """
    head = separate_head(network)
    compared = centred(states, slide) if isinstance(head, CosinePairs) else states
    of_head = head.similarity(compared, compared)
    if network.contrast_projection is not None:
        projected = functional.normalize(network.contrast_projection(states), dim=-1)
        return projected @ projected.T / _TEMPERATURE, of_head
    return (of_head / _TEMPERATURE if isinstance(head, CosinePairs) else of_head), of_head


def cell_states(network: SpatialFormerNetwork, hidden: Tensor, batch: TokenBatch) -> Tensor:
    """Return the states of the cells of a batch, (B, D), that the pair head compares."""
    return network.pool(hidden, batch, "cls").float()


class _Scores(Scores):
    def __init__(self) -> None:
        self.network, self.baseline = ((RankedScores(), RankedScores()) for _ in range(2))  # easy and hard each

    def add(self, loss: Loss, targets: PairKinds) -> None:
        for both, similarity in ((self.network, loss.answer), (self.baseline, targets.baseline)):
            if similarity is None:
                continue
            near = similarity[targets.neighbours.triu()]
            for scores, kind in zip(both, (targets.easy, targets.hard), strict=True):
                far = similarity[kind.triu()]
                scores.rank(torch.cat([near, far]), torch.cat([torch.ones_like(near), torch.zeros_like(far)]))

    def parts(self) -> list[RankedParts]:
        return [scores.parts() for scores in (*self.network, *self.baseline)]


@dataclasses.dataclass(frozen=True)
class RankVerdict:
    """Sentences for each kind of negatives that neighbours are not told from."""

    sentences: list[str]
    aurocs: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by kind of negatives
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of `NAME`, by kind of negatives

    def figures(self) -> dict[str, Any]:
        """Return the AUROC against each kind of negatives beside the baseline's; the lower as the one."""
        each = {f"auroc_{kind}": float(value) for kind, value in self.aurocs.items()}
        if not each:
            return {}
        lower = min(self.aurocs, key=lambda kind: self.aurocs[kind])
        beside = {f"baseline_auroc_{kind}": float(value) for kind, value in self.baselines.items()}
        found: dict[str, Any] = {"auroc": each[f"auroc_{lower}"], **each, **beside}
        return found | (
            {"baseline": NAME, "baseline_auroc": float(self.baselines[lower])} if lower in self.baselines else {}
        )

    @property
    def learnt(self) -> bool:
        """Whether neighbours are told from both kinds."""
        return not self.sentences

    def sentence(self) -> str:
        """Say which they are not told from."""
        return " ".join(self.sentences)


class ContrastObjective(BesideComponents):
    """Have neighbours alike, and more so than cells close by or far away.

    The terms are means over the pairs of a batch, and the loss of a step is the mean over its batches: with whom a cell
    competes is what the batch holds.
    """

    name = "contrast"
    title = "neighbours"
    columns = (
        Column("loss_contrast", "Neighbours, contrast (weighted sum of terms)", "Contrast of neighbours", "loss"),
        Column("auroc_easy", "Neighbours against easy negatives, AUROC", "easy negatives", "AUROC"),
        Column("auroc_hard", "Neighbours against hard negatives, AUROC", "hard negatives", "AUROC"),
        Column("contrast_easy", "Contrast with easy negatives", "Contrast, easy", "cross-entropy (nat)", False),
        Column("contrast_hard", "Contrast with hard negatives", "Contrast, hard", "cross-entropy (nat)", False),
        Column("contrast_probability", "Probability of neighbours", "Probability", "cross-entropy (nat)", False),
    )
    Config = ContrastConfig
    counted = ("contrast_easy", "contrast_hard", "contrast_probability")
    asks = ("pair_head", "pair_logits_of_cells")
    trains = ("pair_head", "contrast_projection")

    def check(self, model: Any, sampling: SamplingConfig) -> None:
        """Refuse models that read two cells as one, and inputs of two cells."""
        require_separate(self.name, model, sampling)

    def require_data(self, train: BatchStream) -> None:
        """Refuse a corpus of which no two training cells are neighbours within the radius of the run."""
        radius = train.distances.positive
        if not train.has_neighbours(radius):
            raise InputError(
                f"No two training cells of {train.corpus.path} lie within {radius:g} um (sampling.radius) of each "
                "other, so there are no neighbours to learn from; the radius of the corpus is "
                f"{train.corpus.distances.positive:g} um (spaf-data build --radius)."
            )

    def targets(self, draw: Draw) -> PairKinds:
        """Sort all pairs of cells of the batch by their distance."""
        cells = draw.inputs.left
        kinds = pair_kinds(draw.cells.coordinates[cells], draw.distances, draw.cells.slide[cells])
        if self._baseline is None:
            return kinds
        states = functional.normalize(centred(self._baseline.states(draw.cells.take(cells)), kinds.slide), dim=1)
        return dataclasses.replace(kinds, baseline=states @ states.T)

    def loss(self, network: SpatialFormerNetwork, hidden: Tensor, targets: PairKinds, batch: TokenBatch) -> Loss:
        """Return the weighted sum of the terms, and each of them."""
        # Products of states in full precision: the exponentials of a contrast are of differences of them.
        with torch.autocast(hidden.device.type, enabled=False):
            states = cell_states(network, hidden, batch)
            ranking, similarity = similarities(network, states, targets.slide)
            terms = neighbour_losses(ranking, separate_head(network).calibrate(similarity), targets)
        weighted = [weight * terms[name] for name, weight in term_weights(self.config).items()]
        total = targets.weight * torch.stack(weighted).sum()
        counted = tuple(targets.weight * terms[name].detach() for name in term_weights(self.config))
        return Loss(total, targets.weight, similarity, counted)

    def new_scores(self) -> Scores:
        """Return what ranks neighbours among easy and among hard negatives."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], RankVerdict]:
        """Return the AUROC of neighbours against either kind of negatives.

        By ranks alone, since the loss of a contrast depends on how many cells compete. The error counts pairs as
        independent, which errs to the side of saying nothing.
        """
        metrics: dict[str, float] = {}
        sentences = []
        baselines: dict[str, float] = {}
        of_all = list(zip(*parts, strict=True))
        for kind, of_kind, beside in zip(("easy", "hard"), of_all[:2], of_all[2:], strict=True):
            value, n_negative, n_positive, _ = ranked(of_kind)
            baseline = ranked(beside)[0]
            if not math.isnan(baseline):
                baselines[kind] = baseline
            error = auroc_error(value, n_negative, n_positive)
            if math.isnan(value):
                sentences.append(f"Whether neighbours are told from {kind} negatives cannot be told: there are none.")
                continue
            metrics[f"auroc_{kind}"] = value
            if not (value > LEAST_AUROC and value - 2.0 * error > 0.5):
                sentences.append(
                    f"Nothing was learnt of neighbours against {kind} negatives: their AUROC on the validation split "
                    f"is {value:.3f} (standard error {error:.3f}; chance .5, and up to {LEAST_AUROC:g} is a trace)."
                )
        aurocs = {name.removeprefix("auroc_"): value for name, value in metrics.items()}
        return metrics, RankVerdict(sentences, aurocs, baselines)

    def never_asked(self) -> str:
        """Say that no step had neighbours."""
        return "Nothing was learnt of neighbours: no two cells of a step were neighbours (sampling.radius)."

    def card_notes(self, sampling: SamplingConfig) -> list[str]:
        """Say what neighbours and negatives were."""
        return [
            f"Neighbours within {sampling.radius:g} um, told from all cells of a batch at {sampling.hard_min:g} to "
            f"{sampling.hard_max:g} um and beyond {sampling.easy_min:g} um"
        ]


def term_weights(config: Any) -> dict[str, float]:
    """Return the weight of each of `neighbour_losses`."""
    return {"easy": config.easy_weight, "hard": config.hard_weight, "probability": config.probability_weight}

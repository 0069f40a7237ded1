"""Neighbourhood reconstruction: the genes of a cell, told from the cells around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaf_model import Surroundings, distance_weights, relative_distances
from spaf_train._checks import require, require_at_least
from spaf_train.objectives.base import Column, Loss, Objective, ObjectiveConfig, Scores, Total
from spaf_train.objectives.counts import AskedGenes, CellTable, answered, draw_genes, require_known_technology
from spaf_train.objectives.explained import Explained, ExplainedScores, explained_shares, packed
from spaf_train.objectives.gene_rates import begin_with_rates, gene_rates, slide_sums

if TYPE_CHECKING:
    from spaf_model import ScGPTSpatialNetwork, ValueBatch
    from spaf_train.stream.loader import BatchStream
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw
    from spaf_train.trainer.signals import StopRequest

# Options of a model with the option here that each must equal.
_AS_MODEL = (("n_neighbours", "neighbours"), ("neighbour_weights", "weights"), ("neighbour_width", "width"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighbourhoodConfig(ObjectiveConfig):
    """Which cells are a neighbourhood, and the weight of telling a cell from it.

    The published choice is ``neighbours = 6``, ``weights = "uniform"``.
    """

    neighbours: int = 30  # nearest cells of the same slide; as model.n_neighbours
    weights: Literal["gaussian", "uniform"] = "gaussian"  # of their states, by distance; as model.neighbour_weights
    width: float = 1.3  # gaussian: standard deviation, in mean distances of the six nearest; as model.neighbour_width
    stop_gradient: bool = False  # whether the states of neighbours are taken as given
    genes: int = 256  # asked of all cells of a batch, drawn anew for each

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("neighbours", self.neighbours, 1)
        require_at_least("genes", self.genes, 1)
        kinds = ("gaussian", "uniform")
        require(self.weights in kinds, f"weights must be one of {', '.join(kinds)}, not {self.weights!r}.")
        require(self.width > 0.0, f"width must be above 0, not {self.width}.")


@dataclasses.dataclass(frozen=True)
class Seen:
    """Counts of the neighbours of some cells, and of the slide, for models that join them with their decoder."""

    distances: Tensor  # float32 (n_rows, K), in the mean distance of the six nearest; infinite where there are fewer
    place: Tensor  # int64 (n_rows, K), rows of `counts`
    counts: Tensor  # float32 (U, G), of the cells that are neighbours of any
    totals: Tensor  # float32 (U,)
    of_slide: Tensor  # float32 (n_rows, G), on the slide without the cell
    slide_totals: Tensor  # float32 (n_rows,)

    def to(self, device: torch.device) -> Seen:
        """Return the same on another device."""
        return Seen(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))

    def around(self, network: ScGPTSpatialNetwork, technologies: Tensor, measured: Tensor) -> Surroundings:
        """Return what is around the cells at the widths of a network."""
        assert network.neighbour_mix is not None
        weights = network.neighbour_mix.weights(self.distances, technologies)
        spread = weights.new_zeros((weights.shape[0], self.counts.shape[0])).scatter_add(1, self.place, weights)
        return Surroundings.of_weights(spread, self.counts, self.totals, self.of_slide, self.slide_totals, measured)


@dataclasses.dataclass(frozen=True)
class Neighbourhood:
    """The cells around some cells of a batch, and the genes that are asked of those."""

    asked: AskedGenes
    near: Tensor  # int64 (n_rows, K), cells of the batch; 0 where there are fewer
    weights: Tensor  # float32 (n_rows, K), adding up to 1
    baseline: Tensor  # float32 (n_rows, G), shares of the genes asked in the weighted counts of the neighbours
    of_values: Tensor  # float32 (n_rows, G), weighted mean of their values
    seen: Seen | None = None  # where the model joins the counts of neighbours

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the number of answers."""
        return self.asked.weight

    def to(self, device: torch.device) -> Neighbourhood:
        """Return the same on another device."""
        moved: dict[str, Any] = {
            field.name: None if (value := getattr(self, field.name)) is None else value.to(device)
            for field in dataclasses.fields(self)
        }
        return Neighbourhood(**moved)


class NeighbourhoodObjective(Objective):
    """Tell the genes of a cell from the states of the cells around it, weighted by distance.

    Neighbours are of the same slide. What the cell itself says takes no part, but for its number of counts.
    """

    name = "neighbourhood"
    title = "cells from their neighbourhood"
    columns = (
        Column("loss_neighbourhood", "Cells from their neighbourhood, loss", "Neighbourhood", "loss"),
        Column(
            "explained_neighbourhood", "Cells from their neighbourhood, share explained beyond gene means",
            "Neighbourhood", "share",
        ),
        Column(
            "baseline_neighbourhood", "The same by the weighted mean of the neighbours' counts", "Mean of neighbours",
            "share",
        ),
    )  # fmt: skip
    Config = NeighbourhoodConfig
    asks = ("neighbourhood_values", "neighbourhood_decoder")
    trains = ("neighbourhood_decoder",)

    def __init__(self, config: NeighbourhoodConfig) -> None:
        super().__init__(config)
        self._rates: NDArray[np.float32] | None = None
        self._slides: NDArray[np.float32] | None = None  # counts of each slide by token, where the model joins them
        self._slide_totals: NDArray[np.float32] | None = None

    def check(self, model: Any, sampling: SamplingConfig) -> None:
        """Refuse samplers that do not read neighbours, and models that would make neighbourhoods otherwise."""
        require_known_technology(self.name, model, sampling)
        require(
            sampling.input == "windows",
            f"objectives.neighbourhood needs the cells around each cell: sampling.input must be windows, not "
            f"{sampling.input}.",
        )
        least = self.config.neighbours
        found = sampling.table("windows").neighbours
        require(
            found >= least,
            f"objectives.neighbourhood.neighbours is {least}, and sampling.windows.neighbours reads {found} of them.",
        )
        has_decoder = bool(getattr(model, "neighbourhood_decoder", True))
        require(has_decoder, "objectives.neighbourhood needs model.neighbourhood_decoder = true.")
        for option, own in _AS_MODEL:
            given = getattr(self.config, own)
            wanted = getattr(model, option, given)
            require(
                wanted == given,
                f"objectives.neighbourhood.{own} is {given!r} and model.{option} {wanted!r}: a model is to be used as "
                "it was trained, so make them equal.",
            )

    def prepare(self, train: BatchStream, validation: BatchStream | None, stop: StopRequest) -> dict[str, Any]:
        """Return the rates of genes, the scales of technologies and, for models that join them, counts of slides."""
        prepared: dict[str, Any] = dict(gene_rates(train))
        if getattr(getattr(train.tokeniser, "config", None), "neighbour_mix", "none") != "none":
            for split, stream in (("train", train), ("validation", validation)):
                if stream is not None:
                    prepared[f"slides_{split}"] = slide_sums(stream)
        return prepared

    def take(self, prepared: Mapping[str, Any], split: str) -> None:
        """Take the rates of genes, that the mean of few neighbours is drawn to, and the counts of slides."""
        self._rates = prepared["rates"].numpy()
        sums = prepared.get(f"slides_{split}")
        self._slides = None if sums is None else sums.numpy()
        self._slide_totals = None if sums is None else sums.sum(dim=1).numpy()

    def begin(self, network: Any, prepared: Mapping[str, Any]) -> None:
        """Let outputs begin at the rates of genes."""
        begin_with_rates(network, prepared)

    def targets(self, draw: Draw) -> Neighbourhood:
        """Find the neighbours of the cells that are asked, and what those have of some genes."""
        config, cells = self.config, draw.inputs.left
        rows = np.flatnonzero(draw.inputs.asked)
        near, distances = draw.cells.nearest(cells[rows], config.neighbours)
        place = np.full(len(draw.cells) + 1, -1, dtype=np.int64)
        place[cells] = np.arange(cells.size)
        near = place[near]
        distances = np.where(near >= 0, distances, np.inf)
        some = (near >= 0).any(axis=1)
        rows, near, distances = rows[some], near[some], distances[some]
        weights = distance_weights(distances, weights=config.weights, width=config.width).astype(np.float32)
        near = np.maximum(near, 0)
        ids = draw_genes(draw, rows, config.genes, draw.generator("neighbourhood"))
        own = CellTable(draw, rows)
        used, inverse = np.unique(near, return_inverse=True)
        used_place: NDArray[np.int64] = np.reshape(inverse, near.shape)
        table = CellTable(draw, used)
        shares, values = self._of_neighbours(draw, table, used, used_place, weights, ids)
        asked = own.at(rows, ids)
        seen = None if self._slides is None else self._seen(draw, rows, own, table, used_place, distances, ids)
        return Neighbourhood(
            asked=asked,
            near=torch.from_numpy(near),
            weights=torch.from_numpy(weights),
            baseline=torch.from_numpy(shares),
            of_values=torch.from_numpy(values),
            seen=seen,
        )

    def _seen(
        self,
        draw: Draw,
        rows: NDArray[np.int64],
        own: CellTable,
        table: CellTable,
        place: NDArray[np.int64],
        distances: NDArray[np.float64],
        ids: NDArray[np.int64],
    ) -> Seen:
        """Return the counts of neighbours, and those of the slide without each cell."""
        assert self._slides is not None
        assert self._slide_totals is not None
        slides = draw.cells.slide[draw.inputs.left[rows]]
        of_slide = self._slides[:, ids][slides] - own.counts[:, ids]
        slide_totals = self._slide_totals[slides] - own.counts.sum(axis=1)
        counts, totals = table.counts[:, ids], table.counts.sum(axis=1)
        parts = (relative_distances(distances), place, counts, totals, of_slide, slide_totals)
        kinds = (np.float32, np.int64, np.float32, np.float32, np.float32, np.float32)
        return Seen(
            *(torch.from_numpy(np.ascontiguousarray(part, kind)) for part, kind in zip(parts, kinds, strict=True))
        )

    def _of_neighbours(
        self,
        draw: Draw,
        table: CellTable,
        used: NDArray[np.int64],
        place: NDArray[np.int64],
        weights: NDArray[np.float32],
        ids: NDArray[np.int64],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the shares of genes in the weighted counts of neighbours, and their weighted values, (n_rows, G).

        Shares are drawn to the rates of genes by the counts of one cell, so that a gene that no neighbour has is no
        impossible one.
        """
        mix = np.zeros((place.shape[0], used.size), dtype=np.float32)
        np.add.at(mix, (np.arange(place.shape[0])[:, None], place), weights)
        counts, totals = mix @ table.counts[:, ids], mix @ table.counts.sum(axis=1)
        values = mix @ table.values[:, ids]
        rates = np.zeros(ids.size, dtype=np.float32)
        if self._rates is not None:
            panel = draw.cells.panels[draw.cells.slide[draw.inputs.left[used[0]]]]
            rates = self._rates[ids] / self._rates[panel].sum()
        prior = float(np.maximum(totals, 1.0).mean()) / max(place.shape[1], 1)
        shares = (counts + prior * rates) / np.maximum(totals + prior, 1.0)[:, None]
        return shares.astype(np.float32), values.astype(np.float32)

    def loss(self, network: ScGPTSpatialNetwork, hidden: Tensor, targets: Neighbourhood, batch: ValueBatch) -> Loss:
        """Return the likelihood of counts, or the squared error of values."""
        states = network.pool(hidden, batch, "cls")
        if self.config.stop_gradient:
            states = states.detach()
        around = (states[targets.near] * targets.weights.unsqueeze(-1).to(states.dtype)).sum(dim=1)
        asked = targets.asked
        of_rows = dataclasses.replace(batch, technologies=batch.technologies[asked.rows])
        seen = None
        if network.neighbour_mix is not None:
            assert targets.seen is not None
            # The mean state of the other cells that are read together, all of one slide, for that of the slide.
            others = states.sum(dim=0, keepdim=True) - states[asked.rows]
            around = around - others / max(states.shape[0] - 1, 1)
            seen = targets.seen.around(network, of_rows.technologies, asked.is_asked)
        numbers = network.neighbourhood_values(around, of_rows, asked.ids, seen)[asked.is_asked]
        found = answered(network, numbers, asked, batch)
        if found.totals is None:
            baseline = targets.of_values[asked.is_asked]
        else:
            baseline = (targets.baseline[asked.is_asked].clamp(min=1e-12) * found.totals).log()
        return Loss(found.losses.sum(), targets.weight, packed(found, baseline))

    def new_scores(self) -> Scores:
        """Return what adds up what is explained."""
        return ExplainedScores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Explained]:
        """Return the share that is explained beyond the means of genes, by the model and by the mean of neighbours."""
        share, baseline = explained_shares(parts)
        verdict = Explained(self.title, share, baseline, "the weighted mean of the neighbours")
        values = {"explained_neighbourhood": share}
        return values | ({} if baseline is None else {"baseline_neighbourhood": baseline}), verdict

    def card_notes(self, sampling: SamplingConfig) -> list[str]:
        """Say what a neighbourhood is."""
        config = self.config
        how = (
            "alike"
            if config.weights == "uniform"
            else f"by distance (width {config.width:g} mean distances of the six nearest)"
        )
        return [f"A neighbourhood is the {config.neighbours} nearest cells of the same slide, weighted {how}"]

"""Values from a cell's state: any gene that its slide measures, asked of the one vector that stands for the cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spaf_train._checks import require_at_least
from spaf_train.objectives.base import Column, Loss, Objective, ObjectiveConfig, Scores, Total
from spaf_train.objectives.counts import AskedGenes, CellTable, answered, draw_genes, require_known_technology
from spaf_train.objectives.explained import Explained, ExplainedScores, explained_shares, packed
from spaf_train.objectives.gene_rates import begin_with_rates, gene_rates

if TYPE_CHECKING:
    from torch import Tensor

    from spaf_model import ScGPTSpatialNetwork, ValueBatch
    from spaf_train.stream.loader import BatchStream
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw
    from spaf_train.trainer.signals import StopRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellValuesConfig(ObjectiveConfig):
    """How many genes are asked of a cell, and the weight of finding their values."""

    genes: int = 256  # asked of all cells of a batch, drawn anew for each

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("genes", self.genes, 1)


class CellValuesObjective(Objective):
    """Give back the genes of a cell from its state, those that were hidden and those that were not.

    The published objective (MVC) asks hidden genes alone; here any that are measured, zeros among them, since the state
    is what is used of the model, and is to keep what the cell is.
    """

    name = "cell_values"
    title = "values from the state of a cell"
    columns = (
        Column("loss_cell_values", "Values from the cell, loss", "Values from the cell", "loss"),
        Column(
            "explained_cell_values", "Values from the cell, share explained beyond gene means", "Values from the cell",
            "share",
        ),
    )  # fmt: skip
    Config = CellValuesConfig
    hides = True  # a cell of which nothing is hidden would be copied
    asks = ("cell_values", "cell_decoder")
    trains = ("cell_decoder",)

    def check(self, model: Any, sampling: SamplingConfig) -> None:
        """Refuse to hide technologies."""
        require_known_technology(self.name, model, sampling)

    def prepare(self, train: BatchStream, validation: BatchStream | None, stop: StopRequest) -> dict[str, Any]:
        """Return the rates of genes, and the scales of technologies."""
        return gene_rates(train)

    def begin(self, network: Any, prepared: Mapping[str, Any]) -> None:
        """Let outputs begin at the rates of genes."""
        begin_with_rates(network, prepared)

    def targets(self, draw: Draw) -> AskedGenes:
        """Choose genes, and look up what the cells have of them."""
        rows = np.flatnonzero(draw.inputs.asked)
        ids = draw_genes(draw, rows, self.config.genes, draw.generator("cell values"))
        return CellTable(draw, rows).at(rows, ids)

    def loss(self, network: ScGPTSpatialNetwork, hidden: Tensor, targets: AskedGenes, batch: ValueBatch) -> Loss:
        """Return the likelihood of counts, or the squared error of values."""
        states = network.pool(hidden, batch, "cls").index_select(0, targets.rows)
        of_rows = dataclasses.replace(batch, technologies=batch.technologies[targets.rows])
        numbers = network.cell_values(states, of_rows, targets.ids)[targets.is_asked]
        found = answered(network, numbers, targets, batch)
        return Loss(found.losses.sum(), targets.weight, packed(found))

    def new_scores(self) -> Scores:
        """Return what adds up what is explained."""
        return ExplainedScores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Explained]:
        """Return the share that is explained beyond the means of genes."""
        share, _ = explained_shares(parts)
        return {"explained_cell_values": share}, Explained(self.title, share)

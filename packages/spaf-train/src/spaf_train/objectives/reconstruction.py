"""Reconstruction: the state of a cell gives back the values of its genes, so that it keeps what the cell is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spaf_model import SequencedCells
from spaf_train._checks import require
from spaf_train.objectives.base import Column, Loss, Objective, ObjectiveConfig, Scores, Total
from spaf_train.objectives.chance import Judgement
from spaf_train.objectives.contrast import cell_states, require_separate

if TYPE_CHECKING:
    from spaf_model import SpatialFormerNetwork, TokenBatch
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(ObjectiveConfig):
    """The weight of giving back the values of a cell."""


@dataclasses.dataclass(frozen=True)
class OwnValues:
    """The values of the cells of a batch, of all their counts and genes, whatever the network was shown."""

    values: Tensor  # (B, n_tokens)
    known: Tensor  # bool (B, n_tokens), genes that the slide of the cell has counts of

    @property
    def weight(self) -> float:
        """What the squared distance is divided by: that of the mean cell of each slide, whose values are 0."""
        return float(self.values.square().sum())

    def to(self, device: torch.device) -> OwnValues:
        """Return the same on another device."""
        return OwnValues(self.values.to(device), self.known.to(device))


class _Scores(Scores):
    def add(self, loss: Loss, targets: OwnValues) -> None:
        pass

    def parts(self) -> None:
        return None


class ReconstructionObjective(Objective):
    """Give back the standardised values of all genes of a cell from its state.

    The loss is the share of their sum of squares that stays unexplained. The values are those of the cell before it was
    thinned or genes were hidden from the batch, so that this is denoising too.
    """

    name = "reconstruction"
    title = "own counts"
    columns = (Column("loss_reconstruction", "Own counts, share unexplained", "Own counts", "share unexplained"),)
    Config = ReconstructionConfig
    asks = ("decoder", "pair_logits_of_cells")
    trains = ("decoder",)

    def check(self, model: Any, sampling: SamplingConfig) -> None:
        """Refuse models without a decoder, and inputs of two cells."""
        require_separate(self.name, model, sampling)
        require(
            getattr(model, "decoder_width", 1) > 0,
            f"objectives.{self.name} needs model.decoder_width above 0, and with it model.gene_values.",
        )

    def targets(self, draw: Draw) -> OwnValues:
        """Look up the values of the cells of the batch."""
        tokenised = draw.cells.tokenised
        assert isinstance(tokenised, SequencedCells), "a decoder is asked for: checked by `asks`"
        values, known = tokenised.values_of(draw.inputs.left)
        return OwnValues(torch.from_numpy(values), torch.from_numpy(known))

    def loss(self, network: SpatialFormerNetwork, hidden: Tensor, targets: OwnValues, batch: TokenBatch) -> Loss:
        """Return the squared distance of what the decoder gives from the values."""
        assert network.decoder is not None, "checked by `check`"
        with torch.autocast(hidden.device.type, enabled=False):
            decoded = network.decoder(cell_states(network, hidden, batch))
        distance = ((decoded - targets.values).square() * targets.known).sum()
        return Loss(distance, targets.weight, decoded)

    def operations(self, network: SpatialFormerNetwork, targets: OwnValues) -> float:
        """Count the matrices of the decoder for each cell, forward and backward."""
        assert network.decoder is not None
        weights = sum(parameter.numel() for parameter in network.decoder.parameters() if parameter.ndim >= 2)
        return 6.0 * weights * len(targets.values)

    def new_scores(self) -> Scores:
        """Return nothing: the loss says it all."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Judgement]:
        """Return the loss beside 1, that of the mean cell of each slide."""
        return {}, Judgement(self.name, total.loss, total.error, 1.0, title=self.title)

    def card_notes(self, sampling: SamplingConfig) -> list[str]:
        """Say that the state gives back the values."""
        return ["The state of a cell was trained to give back the values of its genes"]

"""Masked values: some genes of a cell lose their values, and the network says which they were."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaf_model import HIDDEN_VALUE, PREFIX_VALUE, ExpertMixture, RoutingReport
from spaf_train._checks import require, require_at_least
from spaf_train.objectives.base import Column, Loss, Objective, ObjectiveConfig, Scores, Total
from spaf_train.objectives.counts import AskedGenes, CellTable, answered, require_known_technology
from spaf_train.objectives.explained import Explained, ExplainedScores, explained_shares, packed
from spaf_train.objectives.gene_rates import begin_with_rates, gene_rates

if TYPE_CHECKING:
    from spaf_model import ScGPTSpatialNetwork, ValueBatch
    from spaf_train.stream.loader import BatchStream
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw
    from spaf_train.trainer.signals import StopRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedValuesConfig(ObjectiveConfig):
    """How values are hidden, and the weight of finding them."""

    task: Literal["generation", "perception", "either"] = (
        "generation"  # hidden genes apart, in their place, or by batch
    )
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75)  # share of the genes of a cell that is hidden; each batch draws one
    zeros: float = 0.25  # generation of counts: genes asked beside that the cell does not have, a share of the hidden

    def __post_init__(self) -> None:
        super().__post_init__()
        tasks = ("generation", "perception", "either")
        require(self.task in tasks, f"task must be one of {', '.join(tasks)}, not {self.task!r}.")
        require(len(self.ratios) > 0, "ratios must have at least one share.")
        for ratio in self.ratios:
            require(0.0 < ratio < 1.0, f"ratios must be above 0 and below 1, not {ratio}.")
        require_at_least("zeros", self.zeros, 0.0)


@dataclasses.dataclass(frozen=True)
class MaskedValues:
    """The hidden genes of a batch.

    In generation, answers are asked at positions behind the known ones; in perception, where the genes stand.
    """

    asked: AskedGenes  # a row for each cell of the batch; in perception a column for each known position
    hidden: Tensor  # bool (B, L), known positions that are hidden
    n_asked: Tensor | None  # int64 (B,), positions of each cell asked for; None: perception
    pad: int  # id of padding

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the number of hidden values."""
        return self.asked.weight

    def to(self, device: torch.device) -> MaskedValues:
        """Return the same on another device."""
        n_asked = None if self.n_asked is None else self.n_asked.to(device)
        return MaskedValues(self.asked.to(device), self.hidden.to(device), n_asked, self.pad)

    def hide_in(self, batch: ValueBatch) -> ValueBatch:
        """Return the batch without the hidden values."""
        if self.n_asked is None:
            return dataclasses.replace(batch, values=batch.values.masked_fill(self.hidden, HIDDEN_VALUE))
        kept = batch.mask & ~self.hidden
        lengths = kept.sum(dim=1)
        order = (~kept).int().argsort(dim=1, stable=True)[:, : int(lengths.max()) if lengths.numel() else 0]
        there = torch.arange(order.shape[1]) < lengths.unsqueeze(1)
        read = dataclasses.replace(
            batch,
            ids=batch.ids.gather(1, order).masked_fill(~there, self.pad),
            values=batch.values.gather(1, order).masked_fill(~there, PREFIX_VALUE),
            lengths=lengths,
        )
        return read.asking(self.asked.ids, self.n_asked)

    def positions(self, batch: ValueBatch) -> Tensor:
        """Return where in hidden states the answers are asked, bool (B, L + A)."""
        if self.n_asked is None:
            return self.asked.is_asked
        nothing = torch.zeros_like(batch.ids, dtype=torch.bool)
        return torch.cat([nothing, self.asked.is_asked], dim=1)


def hide_values(draw: Draw, config: MaskedValuesConfig, generator: torch.Generator) -> MaskedValues:
    """Choose the values of a batch that are hidden.

    A share of the genes of each cell, rounded down, is hidden; the share is drawn once for the batch. In generation
    that is what the published collator calls both: each cell is split into genes that are known and genes that are
    asked for. Genes that the cell does not have, of those that its slide measures, are asked beside.

    Parameters
    ----------
    draw
        The batch; cells that are read for the sake of others keep all.
    config
        Shares.
    generator
        Source of randomness.
    """
    batch: ValueBatch = draw.tokens
    in_place = config.task == "perception"
    if config.task == "either":
        in_place = bool(torch.rand((), generator=generator) < 0.5)
    ratio = config.ratios[int(torch.randint(len(config.ratios), (), generator=generator))]
    n_genes = np.where(draw.inputs.asked, batch.lengths.numpy() - 1, 0)
    n_hidden = (n_genes * ratio).astype(np.int64)
    draws = torch.rand(batch.ids.shape, generator=generator).numpy()
    is_gene = batch.mask.numpy().copy()
    is_gene[:, :1] = False
    ranks = np.where(is_gene, draws, 2.0).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    hidden = is_gene & (ranks < n_hidden[:, None])
    rows = np.arange(n_hidden.size)
    table = CellTable(draw, rows)
    if in_place:
        return MaskedValues(
            table.at(rows, batch.ids.numpy(), hidden), torch.from_numpy(hidden), None, draw.vocabulary.pad
        )
    asked = _asked_ids(batch.ids.numpy(), hidden, table, (n_hidden * config.zeros).astype(np.int64), draw, generator)
    n_asked = (asked >= 0).sum(axis=1)
    found = table.at(rows, np.where(asked >= 0, asked, draw.vocabulary.pad), asked >= 0)
    return MaskedValues(found, torch.from_numpy(hidden), torch.from_numpy(n_asked), draw.vocabulary.pad)


def _asked_ids(
    ids: NDArray[np.int64],
    hidden: NDArray[np.bool_],
    table: CellTable,
    n_zeros: NDArray[np.int64],
    draw: Draw,
    generator: torch.Generator,
) -> NDArray[np.int64]:
    """Return the ids of hidden genes, then of as many genes that are measured and zero as there are to be, (B, A)."""
    most = int(n_zeros.max(initial=0))
    # Drawn with replacement and kept once: of a few hundred genes or more, what is lost does not matter.
    slides = draw.cells.slide[draw.inputs.left]
    zeros = np.full((ids.shape[0], most), -1, dtype=np.int64)
    for slide in np.unique(slides) if most else ():
        own = np.flatnonzero(slides == slide)
        panel = np.flatnonzero(draw.cells.panels[slide])
        zeros[own] = panel[torch.randint(panel.size, (own.size, most), generator=generator).numpy()]
    rows = np.arange(ids.shape[0])[:, None]
    zeros.sort(axis=1)
    repeated = np.concatenate(
        [np.zeros((ids.shape[0], min(most, 1)), dtype=bool), zeros[:, 1:] == zeros[:, :-1]], axis=1
    )
    kept = (np.arange(most) < n_zeros[:, None]) & ~repeated & (table.counts[rows, zeros] == 0)
    all_ids = np.concatenate([ids, zeros], axis=1)
    is_asked = np.concatenate([hidden, kept], axis=1)
    n_asked = is_asked.sum(axis=1)
    order = (~is_asked).argsort(axis=1, kind="stable")[:, : int(n_asked.max(initial=0))]
    found = np.take_along_axis(all_ids, order, axis=1)
    return np.where(np.arange(order.shape[1]) < n_asked[:, None], found, -1)


@dataclasses.dataclass(frozen=True)
class RoutedLoss(Loss):
    """A loss with how many tokens of each technology went to each expert."""

    routed: Tensor = dataclasses.field(kw_only=True)  # (T, E)


class _Scores(ExplainedScores):
    """What is explained, and how many tokens of each technology went to each expert."""

    def __init__(self) -> None:
        super().__init__()
        self._routed: NDArray[np.float64] | None = None

    def add(self, loss: Loss, targets: Any) -> None:
        super().add(loss, targets)
        if isinstance(loss, RoutedLoss):
            counts = loss.routed.cpu().numpy()
            self._routed = counts if self._routed is None else self._routed + counts

    def parts(self) -> Any:
        return super().parts(), self._routed


class MaskedValuesObjective(Objective):
    """Find the values that were hidden."""

    name = "masked_values"
    title = "masked values"
    columns = (
        Column("loss_masked_values", "Masked values, loss", "Masked values", "loss"),
        Column("explained_masked_values", "Masked values, share explained beyond gene means", "Masked values", "share"),
        Column("information_experts", "Experts, what they tell of the technology (bits)", "Experts", "bit"),
        Column("least_load_experts", "Experts, tokens of the one with fewest (share)", "Least used expert", "share"),
    )
    Config = MaskedValuesConfig
    hides = True
    asks = ("token_values", "token_decoder")
    trains: ClassVar[tuple[str, ...]] = ("token_decoder", "flags")

    def __init__(self, config: MaskedValuesConfig) -> None:
        super().__init__(config)
        if config.task != "generation":  # some batch asks for no gene apart, and leaves the vector that says so alone
            self.trains = ("token_decoder",)  # type: ignore[misc]

    def check(self, model: Any, sampling: SamplingConfig) -> None:
        """Refuse to hide technologies, and to ask for genes apart where a model cannot be asked so."""
        require_known_technology(self.name, model, sampling)
        require(
            self.config.task == "perception" or bool(getattr(model, "generative", True)),
            f"objectives.masked_values.task is {self.config.task!r}, which needs model.generative = true.",
        )

    def prepare(self, train: BatchStream, validation: BatchStream | None, stop: StopRequest) -> dict[str, Any]:
        """Return the rates of genes, and the scales of technologies."""
        return gene_rates(train)

    def begin(self, network: Any, prepared: Mapping[str, Any]) -> None:
        """Let outputs begin at the rates of genes."""
        begin_with_rates(network, prepared)

    def targets(self, draw: Draw) -> MaskedValues:
        """Hide values of the batch."""
        return hide_values(draw, self.config, draw.generator("masked values"))

    def hide(self, tokens: ValueBatch, targets: MaskedValues) -> ValueBatch:
        """Take the hidden values away."""
        return targets.hide_in(tokens)

    def loss(self, network: ScGPTSpatialNetwork, hidden: Tensor, targets: MaskedValues, batch: ValueBatch) -> Loss:
        """Return the likelihood of counts, or the squared error of values."""
        positions = targets.positions(batch)
        found = answered(network, network.token_values(hidden, batch, positions), targets.asked, batch)
        answer = packed(found)
        if not network.training and isinstance(network.token_decoder, ExpertMixture):
            routed = network.tokens_to_decode(hidden, batch, positions)
            return RoutedLoss(found.losses.sum(), targets.weight, answer, routed=network.token_decoder.count(routed))
        return Loss(found.losses.sum(), targets.weight, answer)

    def new_scores(self) -> Scores:
        """Return what adds up what is explained, and where tokens went."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Explained]:
        """Return the share that is explained beyond the means of genes, and what experts are used for."""
        explained, routed = zip(*parts, strict=True)
        share, _ = explained_shares(explained)
        values = {"explained_masked_values": share}
        counted = [counts for counts in routed if counts is not None]
        if counted:
            counts = np.sum(counted, axis=0)
            report = RoutingReport.of_counts(counts, [str(row) for row in range(counts.shape[0])])
            values |= {"information_experts": report.mutual_information, "least_load_experts": float(report.load.min())}
        return values, Explained(self.title, share)

    def card_notes(self, sampling: SamplingConfig) -> list[str]:
        """Say how values were hidden."""
        ratios = ", ".join(f"{ratio:g}" for ratio in self.config.ratios)
        return [
            f"Masked values: {self.config.task}, of the genes of a cell a share of {ratios} hidden; genes that a slide "
            "does not measure are unknown, and asked of none of its cells"
        ]

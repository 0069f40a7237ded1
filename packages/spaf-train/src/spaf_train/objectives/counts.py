"""What genes of cells are asked: their counts, what tokens say of them, and the loss of what a network answers.

A gene that a slide does not measure is asked of none of its cells: it is unknown, not zero.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaf_train._checks import require

if TYPE_CHECKING:
    from spaf_model import CountOutput, ScGPTSpatialConfig, ValueBatch
    from spaf_train.stream.samplers import SamplingConfig
    from spaf_train.stream.window import Draw


class AnswersValues(Protocol):
    """A network whose decoders give a number for a gene, and what makes a count of it."""

    config: ScGPTSpatialConfig
    count_output: CountOutput | None


@dataclasses.dataclass(frozen=True)
class AskedGenes:
    """Genes that cells of a batch are asked for."""

    rows: Tensor  # int64 (n_rows,), the cells of the batch that are asked
    ids: Tensor  # int64 (n_rows, G), or (G,) where all are asked the same
    counts: Tensor  # float32 (n_rows, G)
    values: Tensor  # float32 (n_rows, G), as the tokens have them; 0 for a gene that the cell does not have
    is_asked: Tensor  # bool (n_rows, G), False where the slide does not measure the gene, and at padding

    @property
    def weight(self) -> float:
        """What the summed loss of this batch is divided by: the number of answers."""
        return float(self.is_asked.sum())

    def to(self, device: torch.device) -> AskedGenes:
        """Return the same on another device."""
        return AskedGenes(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


class CellTable:
    """The genes of the cells of a batch as dense tables, to look up any of them.

    Parameters
    ----------
    draw
        The batch.
    rows
        Which of its cells, (n_rows,).
    """

    def __init__(self, draw: Draw, rows: NDArray[np.int64]) -> None:
        cells = draw.inputs.left[rows]
        taken = draw.cells.take(cells)
        shape = (rows.size, draw.vocabulary.n_tokens)
        self.counts = np.zeros(shape, dtype=np.float32)
        np.add.at(self.counts, (np.repeat(np.arange(rows.size), taken.n_genes), taken.tokens), taken.counts)
        batch: ValueBatch = draw.tokens
        self.values = np.zeros(shape, dtype=np.float32)
        known = batch.mask[torch.from_numpy(rows), 1:].numpy()
        places = np.nonzero(known)
        ids = batch.ids[torch.from_numpy(rows), 1:].numpy()
        self.values[places[0], ids[places]] = batch.values[torch.from_numpy(rows), 1:].numpy()[places]
        self.panels = draw.cells.panels[draw.cells.slide[cells]]  # (n_rows, n_tokens)

    def at(
        self, rows: NDArray[np.int64], ids: NDArray[np.int64], is_asked: NDArray[np.bool_] | None = None
    ) -> AskedGenes:
        """Return the genes of ids (n_rows, G) or (G,); those that are not measured are not asked.

        Parameters
        ----------
        rows
            The cells in the batch.
        ids
            Token ids.
        is_asked
            Which of them are asked; None: all that are measured.
        """
        index = np.broadcast_to(ids, (rows.size, ids.shape[-1]))
        counts, values = (np.take_along_axis(table, index, axis=1) for table in (self.counts, self.values))
        measured = np.take_along_axis(self.panels, index, axis=1)
        asked = measured if is_asked is None else measured & is_asked
        return AskedGenes(
            *(torch.from_numpy(np.ascontiguousarray(part)) for part in (rows, ids, counts, values, asked))
        )


def draw_genes(draw: Draw, rows: NDArray[np.int64], n: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Return the ids of up to n genes that some slide of the cells measures, drawn evenly, ascending."""
    slides = np.unique(draw.cells.slide[draw.inputs.left[rows]])
    candidates = np.flatnonzero(draw.cells.panels[slides].any(axis=0))
    chosen = torch.randperm(candidates.size, generator=generator)[:n].numpy()
    return np.sort(candidates[chosen])


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a network answers to genes asked, flattened to those that are asked, for losses and scores."""

    ids: Tensor  # int64 (N,)
    truth: Tensor  # float32 (N,), counts, or values where the model answers those
    answer: Tensor  # float32 (N,), logarithms of mean counts, or values
    losses: Tensor  # float32 (N,)
    totals: Tensor | None  # float32 (N,), counts of the cells; None where the model answers values


def answered(network: Any, numbers: Tensor, asked: AskedGenes, batch: ValueBatch) -> Answers:
    """Return what the numbers of a decoder say, with their losses.

    Where the configuration of the model says counts, the loss is the negative log-likelihood of a negative binomial
    whose mean is an offset of the cell (its counts over measured genes) times what the decoder says, else the squared
    error of the value, as published.

    Parameters
    ----------
    network
        Of the decoder.
    numbers
        Of the genes that are asked, (N,), in the order of `asked.is_asked`.
    asked
        What was asked.
    batch
        Of the cells.
    """
    at = asked.is_asked
    ids = asked.ids.expand(at.shape)[at]
    output = network.count_output
    if output is None:
        answer, truth = numbers.float(), asked.values[at]
        return Answers(ids, truth, answer, (answer - truth).square(), None)
    rows = asked.rows.unsqueeze(1).expand(at.shape)[at]
    totals, truth = batch.totals[rows], asked.counts[at]
    answer = output.log_means(numbers.unsqueeze(1), ids.unsqueeze(1), totals, batch.technologies[rows]).squeeze(1)
    return Answers(ids, truth, answer, output.loss(answer, ids, truth), totals)


def require_known_technology(name: str, model: Any, sampling: SamplingConfig) -> None:
    """Refuse to hide the technology of a cell, which decoders read."""
    require(
        sampling.context_dropout == 0.0 or getattr(model, "n_technologies", None) == 0,
        f"objectives.{name} needs the technology of every cell, which its decoders read: "
        f"sampling.context_dropout must be 0, not {sampling.context_dropout}.",
    )

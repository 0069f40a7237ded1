"""What a model expects of genes: decoders asked of the states of cells, and their numbers as counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model.embedding import embed_tokenised, inference
from spaf_model.errors import InputError
from spaf_model.scgpt_spatial.batch import ValueBatch
from spaf_model.scgpt_spatial.neighbourhood import neighbourhood_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from spaf_model.cell_source import CellSource
    from spaf_model.counts import CellCounts
    from spaf_model.options import EmbeddingSettings
    from spaf_model.scgpt_spatial.model import ScGPTSpatial
    from spaf_model.vocabulary import Vocabulary

_LISTED = 5  # genes named in one message
_CELLS_AT_A_TIME = 4096


@dataclasses.dataclass(frozen=True)
class NicheExpression:
    """What a model expects of genes by a cell itself, and by the cells around it; row i belongs to cell i."""

    own: NDArray[np.float32]  # (n_cells, n_genes); NaN rows for cells without a gene of the model
    niche: NDArray[np.float32]  # (n_cells, n_genes); NaN rows for cells without a neighbour
    gate: float  # weight of the niche in `joined`

    @property
    def joined(self) -> NDArray[np.float32]:
        """The two weighted by the gate, (n_cells, n_genes); the cell alone where it has no neighbour."""
        both = (1.0 - self.gate) * self.own + self.gate * self.niche
        joined: NDArray[np.float32] = np.where(np.isnan(self.niche), self.own, both).astype(np.float32)
        return joined


@dataclasses.dataclass(frozen=True)
class Asked:
    """Genes that a model is asked for."""

    ids: NDArray[np.int64]
    scale: NDArray[np.float32]  # population means

    @classmethod
    def of(cls, vocabulary: Vocabulary, genes: Sequence[str]) -> Asked:
        """Find genes.

        Raises
        ------
        InputError
            If the model does not know one of them, or one is there twice.
        """
        if isinstance(genes, str):
            raise InputError(f"genes is a list of names, not {genes!r}.")
        match = vocabulary.look_up(list(genes))
        if match.unmatched:
            more = f" and {len(match.unmatched) - _LISTED} more" if len(match.unmatched) > _LISTED else ""
            raise InputError(f"The model knows no gene {', '.join(match.unmatched[:_LISTED])}{more}.")
        twice = [*match.duplicated, *match.joined]
        if twice:
            raise InputError(f"Gene {twice[0]!r} is asked for more than once.")
        return cls(match.token_ids, vocabulary.scale[match.token_ids])


def expected_expression(
    model: ScGPTSpatial,
    source: CellSource,
    genes: Asked,
    *,
    niche: bool,
    raw: bool,
    settings: EmbeddingSettings,
    on_batch: Callable[[int], None] | None,
) -> list[NDArray[np.float32]]:
    """Return what cells expect of genes and, on request, what their neighbourhoods do; (n_cells, n_genes) each.

    Parameters
    ----------
    model
        Its decoders are asked.
    source
        The cells; with slides and places where the niche is wanted.
    genes
        Those asked for.
    niche
        Whether the neighbourhoods are asked too.
    raw
        Whether the numbers of the decoders are wanted as they are.
    settings
        Batch size, precision and kernel.
    on_batch
        Called after each batch with the number of cells in it.
    """
    n_decoders = 2 if niche else 1
    results = [np.full((source.n_cells, genes.ids.size), np.nan, dtype=np.float32) for _ in range(n_decoders)]
    states = np.full((source.n_cells, model.network.width), np.nan, dtype=np.float32)
    for rows, cells in source.chunks():
        prepared = model.tokeniser(cells)
        states[rows] = embed_tokenised(model.network, prepared, method="cls", settings=settings, on_batch=on_batch)
    asked_of = [states]
    if niche:
        assert source.places is not None
        config = model.config
        weights = neighbourhood_weights(
            source.places, source.slides, n_neighbours=config.n_neighbours, weights=config.neighbour_weights,
            width=config.neighbour_width, among=np.isfinite(states[:, 0]),
        )  # fmt: skip
        around = weights @ np.nan_to_num(states)
        around[np.diff(weights.indptr) == 0] = np.nan
        asked_of.append(around)
    for rows, cells in source.chunks():  # counts are read again rather than kept
        prepared = model.tokeniser(cells)
        for result, of, decoder in zip(results, asked_of, ("cell", "neighbourhood"), strict=False):
            numbers = _decoded(model, of[rows], prepared.technologies, prepared.totals, genes, decoder, settings, raw)
            if model.network.count_output is None and not raw:
                numbers = counts_of_bins(numbers, cells, model.vocabulary.scale, genes.scale, model.config.n_bins)
            result[rows] = numbers
    return results


def _decoded(
    model: ScGPTSpatial,
    states: NDArray[np.float32],
    technologies: NDArray[np.int64],
    totals: NDArray[np.float32],
    genes: Asked,
    decoder: str,
    settings: EmbeddingSettings,
    raw: bool,
) -> NDArray[np.float32]:
    """Ask a decoder of the states of cells, some thousand at a time."""
    network = model.network
    result = np.full((states.shape[0], genes.ids.size), np.nan, dtype=np.float32)
    # A cell without counts has nothing that numbers of a neighbourhood could be read by.
    readable = np.isfinite(states).all(axis=1) & (raw | (totals > 0))
    known = np.flatnonzero(readable)
    with inference(network, settings) as (device, _):
        ids = torch.from_numpy(genes.ids).to(device)
        for start in range(0, known.size, _CELLS_AT_A_TIME):
            cells = known[start : start + _CELLS_AT_A_TIME]
            batch = _of_cells(technologies[cells], totals[cells]).to(device)
            asked = network.cell_values if decoder == "cell" else network.neighbourhood_values
            numbers = asked(torch.from_numpy(states[cells]).to(device), batch, ids).float()
            if network.count_output is not None and not raw:
                numbers = network.count_output.log_means(numbers, ids, batch.totals, batch.technologies).exp()
            result[cells] = numbers.cpu().numpy()
    return result


def _of_cells(technologies: NDArray[np.int64], totals: NDArray[np.float32]) -> ValueBatch:
    """Return a batch of cells of which no gene is read."""
    nothing = torch.zeros((totals.size, 0), dtype=torch.int64)
    return ValueBatch(
        ids=nothing, values=nothing.float(), lengths=torch.zeros(totals.size, dtype=torch.int64),
        technologies=torch.from_numpy(technologies), totals=torch.from_numpy(totals),
    )  # fmt: skip


def counts_of_bins(
    numbers: NDArray[np.float32],
    cells: CellCounts,
    scale: NDArray[np.float32],
    asked_scale: NDArray[np.float32],
    n_bins: int,
) -> NDArray[np.float32]:
    """Return the counts that bins of a cell stand for: its own values at those quantiles, times the means of genes.

    Below bin 1 a count goes to 0 with the bin; above the last it stays that of the last.

    Parameters
    ----------
    numbers
        Bins, (n_cells, n_genes), whole or not.
    cells
        The counts that made the bins of each cell.
    scale
        Population mean of each token.
    asked_scale
        That of each gene asked for.
    n_bins
        Bins, that of a count of zero included.
    """
    result = np.full(numbers.shape, np.nan, dtype=np.float32)
    quotients = cells.counts / scale[cells.tokens]
    for cell, (start, stop) in enumerate(zip(cells.indptr[:-1], cells.indptr[1:], strict=True)):
        if start == stop:
            continue
        values = np.sort(quotients[start:stop])
        bins = 1.0 + (n_bins - 2) * np.arange(values.size) / max(values.size - 1, 1)
        if values.size == 1:
            bins[:] = n_bins - 1
        found = np.interp(numbers[cell], np.concatenate([[0.0], bins]), np.concatenate([[0.0], values]))
        result[cell] = np.where(np.isnan(numbers[cell]), np.nan, found * asked_scale)
    return result

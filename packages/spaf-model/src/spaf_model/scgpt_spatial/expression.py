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
from spaf_model.scgpt_spatial.seen import SeenAround, means_of_others

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
    seen: SeenAround | None = None
    if niche:
        around = neighbourhood_states(model, source, states)
        if model.network.neighbour_mix is not None:
            seen = SeenAround.of(model, source, genes.ids, among=np.isfinite(states[:, 0]))
            around -= means_of_others(states, source.slides)
        asked_of.append(around)
    for rows, cells in source.chunks():  # counts are read again rather than kept
        prepared = model.tokeniser(cells)
        of_cells = _of_cells(prepared.technologies, prepared.totals)
        for result, of, own_seen in zip(results, asked_of, (None, seen), strict=False):
            is_niche = of is not states
            numbers = _decoded(model, of[rows], of_cells, genes, settings, raw, niche=is_niche, seen=own_seen, at=rows)
            if model.network.count_output is None and not raw:
                numbers = counts_of_bins(numbers, cells, model.vocabulary.scale, genes.scale, model.config.n_bins)
            result[rows] = numbers
    return results


def neighbourhood_states(model: ScGPTSpatial, source: CellSource, states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weighted mean state of the cells around each cell; NaN where there is none."""
    assert source.places is not None
    config = model.config
    weights = neighbourhood_weights(
        source.places, source.slides, n_neighbours=config.n_neighbours, weights=config.neighbour_weights,
        width=config.neighbour_width, among=np.isfinite(states[:, 0]),
    )  # fmt: skip
    around: NDArray[np.float32] = weights @ np.nan_to_num(states)
    around[np.diff(weights.indptr) == 0] = np.nan
    return around


def _decoded(
    model: ScGPTSpatial,
    states: NDArray[np.float32],
    of_cells: ValueBatch,
    genes: Asked,
    settings: EmbeddingSettings,
    raw: bool,
    *,
    niche: bool,
    seen: SeenAround | None,
    at: slice | NDArray[np.int64],
) -> NDArray[np.float32]:
    """Ask a decoder of the states of cells, those at some rows of the source, some thousand at a time."""
    network = model.network
    result = np.full((states.shape[0], genes.ids.size), np.nan, dtype=np.float32)
    # A cell without counts has nothing that numbers of a neighbourhood could be read by.
    readable = np.isfinite(states).all(axis=1) & (raw | (of_cells.totals.numpy() > 0))
    known = np.flatnonzero(readable)
    places = np.arange(seen.n_cells)[at] if seen is not None else known
    with inference(network, settings) as (device, _):
        ids = torch.from_numpy(genes.ids).to(device)
        for start in range(0, known.size, _CELLS_AT_A_TIME):
            cells = known[start : start + _CELLS_AT_A_TIME]
            batch = _of_cells(of_cells.technologies.numpy()[cells], of_cells.totals.numpy()[cells]).to(device)
            of_batch = torch.from_numpy(states[cells]).to(device)
            if niche:
                around = None if seen is None else seen.around(places[cells], device)
                numbers = network.neighbourhood_values(of_batch, batch, ids, around).float()
            else:
                numbers = network.cell_values(of_batch, batch, ids).float()
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

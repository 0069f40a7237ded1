"""Embedding cells with a network of any family, a batch at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spaf_model._console import progress_bar
from spaf_model.batching import token_budget_batches
from spaf_model.errors import InputError
from spaf_model.niche import NICHE, niche_states
from spaf_model.options import EmbeddingSettings

if TYPE_CHECKING:
    from anndata import AnnData

    from spaf_model.cell_source import CellSource
    from spaf_model.distributed import Processes
    from spaf_model.family import BatchT, Network, TokenisedCells
    from spaf_model.model import Model
    from spaf_model.options import CallOptions

WHOLE = ""  # the embedding itself, among its parts
_NO_CPU_MEMORY = "DefaultCPUAllocator"  # torch has no class of error for it


def embed_tokenised(
    network: Network[BatchT],
    cells: TokenisedCells[BatchT],
    *,
    method: str,
    settings: EmbeddingSettings | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Embed cells.

    Parameters
    ----------
    network
        Put into evaluation mode for the time of the call.
    cells
        Cells that a tokeniser of the same family prepared.
    method
        How one state of a cell is made (`Network.pool`).
    settings
        Batch size, precision and kernel.
    on_batch
        Called after each batch with the number of cells in it.

    Returns
    -------
    array
        (n_cells, width), in the order of the cells; NaN rows for cells in which there is nothing to read.
    """
    settings = settings or EmbeddingSettings()
    lengths = cells.lengths
    result = np.full((lengths.size, network.width), np.nan, dtype=np.float32)
    occupied = np.flatnonzero(lengths)
    if occupied.size == 0:
        return result
    with inference(network, settings) as (device, budget):
        embedder = network.embedder(method, settings)
        for batch in token_budget_batches(lengths[occupied], budget):
            rows = occupied[batch]
            states = embedder(cells.batch(rows).to(device))
            result[rows] = states.float().cpu().numpy()
            if on_batch is not None:
                on_batch(rows.size)
    return result


def embed_source(
    model: Model[Any, Any], source: CellSource, processes: Processes, method: str, call: CallOptions, *, niche: bool
) -> dict[str, NDArray[np.float32]]:
    """Embed the cells of a source, each process its share, and return those of all: as `Model.embed_counts` does.

    Parameters
    ----------
    model
        Of any family.
    source
        With places, where niche states are wanted.
    processes
        That share the work.
    method
        How a cell gets one state.
    call
        Settings, and whether a bar is shown.
    niche
        Whether niche states are wanted, under ``"niche"``: those of the family, or else of its embedding.
    """
    start, stop = processes.share(source.n_cells)
    own = {"niche": True} if niche and model.has_own_niche else {}
    with progress_bar("Embedding cells", stop - start, shown=call.progress) as advance, processes.all_or_none():
        if model.reads_whole_slides:
            embeddings = model.embed_counts(
                source.read(), method=method, settings=call.settings, on_batch=advance, **own
            )
        else:
            # No cell has embeddings of the right widths.
            of_none = model.embed_counts(source.none(), method=method, settings=call.settings)
            embeddings = {
                part: np.empty((source.n_cells, states.shape[1]), dtype=np.float32) for part, states in of_none.items()
            }
            for rows, cells in source.chunks(start, stop):
                found = model.embed_counts(cells, method=method, settings=call.settings, on_batch=advance)
                for part, states in found.items():
                    embeddings[part][rows] = states
    if not model.reads_whole_slides:
        for states in embeddings.values():
            processes.collect(states)
    if niche and not own:
        assert source.places is not None
        embeddings[NICHE] = niche_states(
            embeddings[WHOLE], source.places, source.slides, n_threads=torch.get_num_threads()
        )
    return embeddings


@contextlib.contextmanager
def inference(network: Network[Any], settings: EmbeddingSettings) -> Iterator[tuple[torch.device, int]]:
    """Yield device and token budget, in evaluation mode without gradients; running out of memory becomes advice."""
    was_training = network.training
    device = network.device
    budget = settings.token_budget or network.token_budget(device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
    network.eval()
    try:
        with torch.inference_mode(), autocast:
            yield device, budget
    except RuntimeError as error:  # also that of a GPU out of memory
        if not isinstance(error, torch.OutOfMemoryError) and _NO_CPU_MEMORY not in str(error):
            raise
        raise InputError(
            f"The device {device} ran out of memory at {budget} tokens a batch: "
            "lower token_budget (--token-budget on the command line, batch_size in embed_data)."
        ) from error
    finally:
        network.train(was_training)


def refuse_not_finite(names: Sequence[str], embedding: NDArray[np.float32], n_empty: int, source: str) -> None:
    """Refuse embeddings of cells that have genes but got no numbers; rows of NaN are those of empty cells alone.

    Raises
    ------
    InputError
        If more rows than `n_empty` are not finite; the sentence names the model and a cell.
    """
    bad = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
    if bad.size > n_empty:
        raise InputError(
            f"The model {source} gives {bad.size - n_empty} of {len(names)} cells an embedding that is not finite, "
            f"such as {str(names[bad[-1]])!r}: its weights cannot be used, or the precision is too low for them."
        )


def write_parts(
    adata: AnnData, found: Mapping[str, NDArray[np.float32]], key: str, *, parts: Sequence[str], known: Sequence[str]
) -> None:
    """Write an embedding into ``obsm[key]`` and some of its parts beside it.

    Parameters
    ----------
    adata
        The cells.
    found
        The embedding under ``""``, and its parts.
    parts
        Those that are wanted. Others of `known` are taken away: they would be of an earlier model.
    """
    adata.obsm[key] = found[WHOLE]
    for part in dict.fromkeys([*known, *parts]):
        name = f"{key}_{part}"
        if part in parts and part in found:
            adata.obsm[name] = found[part]
        elif name in adata.obsm:
            del adata.obsm[name]

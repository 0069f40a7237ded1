"""Integration of an AnnData of several batches: embeddings, baselines, and how well each does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.errors import InputError
from spaf_analysis.integrate.baselines import (
    PCA_ROW,
    PROJECTION_ROW,
    RANDOM_ROW,
    baseline_embeddings,
    centred,
    harmony,
    has_harmony,
)
from spaf_analysis.integrate.judging import judge_integration
from spaf_analysis.integrate.neighbours import RESOLUTIONS
from spaf_analysis.keys import EMBEDDING, INTEGRATION, SPATIAL
from spaf_analysis.metrics import spatial_tiles
from spaf_analysis.tables import embedded_cells, labels_of, places_of, slide_names, stored_result, table_of
from spaf_model import check_key

if TYPE_CHECKING:
    import anndata as ad

    from spaf_model import Cells

MAX_CELLS = 20_000  # that are judged; embeddings are made of all
WITH_HARMONY = " + Harmony"
CENTRED = ", centred"
OURS = "embedding"
_LEAST_CELLS = 30


def integrate(
    adata: Cells,
    *,
    batch: str,
    label: str | None = None,
    key: str = EMBEDDING,
    use_harmony: bool | None = None,
    centre: bool = False,
    max_cells: int = MAX_CELLS,
    n_replicates: int = 300,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = INTEGRATION,
) -> None:
    """Integrate batches and judge it: an embedding as it is and after Harmony, beside baselines.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X` and an embedding in `obsm`, or a SpatialData. Written: `obsm[f"{key}_harmony"]`
        and, on request, `obsm[f"{key}_centred"]` (NaN for cells without an embedding); the baselines to
        `obsm[f"{key_added}_{name}"]` (`pca`, `scaled_pca`, `hvg_pca`, each with `_harmony`); `scores`, `differences`,
        `overall` (see `Integration`), `notes`, `resolutions`, `parameters` to `uns[key_added]`.
    batch
        Column of `obs` that says what is to be mixed: slides, patients, technologies.
    label
        Column of `obs` with what is to be kept, such as cell types. None: only what needs no labels.
    key
        The embedding in `obsm`, of this or any other model.
    use_harmony
        Whether Harmony is run; None where harmonypy is installed (the extra `integration`), with a note where not.
    centre
        Also judge the embedding less the mean of each batch.
    max_cells
        Of more cells as many are drawn to be judged.
    n_replicates
        Draws behind the intervals: of tiles of tissue where there are places, of cells where there are none.
    seed
        Of everything random.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.

    Raises
    ------
    InputError
        If a column or the embedding is missing, there is one batch or one label, or Harmony is asked for and not there.
    """
    check_key(key_added)
    check_key(key, "key")
    table = table_of(adata, table_key)
    of_batch, batches = labels_of(table, batch, "batch")
    of_label = None if label is None else labels_of(table, label, "label")
    if use_harmony and not has_harmony():
        raise InputError("Harmony needs the extra: pip install 'spaf-analysis[integration]'.")
    embedding, cells = embedded_cells(table, key)
    known = of_batch[cells] >= 0
    embedding, cells = embedding[known], cells[known]
    _check_size(of_batch[cells], batches, batch)
    notes = _notes(table, cells, of_batch, of_label, label)
    run_harmony = has_harmony() if use_harmony is None else use_harmony
    if use_harmony is None and not run_harmony:
        notes.append("Harmony was not run: install the extra spaf-analysis[integration].")
    codes = np.unique(of_batch[cells], return_inverse=True)[1].ravel()
    embeddings = _embeddings(table, embedding, cells, codes, run_harmony=run_harmony, centre=centre, seed=seed)
    judged = np.arange(len(cells))
    if len(cells) > max_cells:
        judged = np.sort(np.random.default_rng(seed).choice(len(cells), max_cells, replace=False))
        notes.append(f"{max_cells:,} of {len(cells):,} cells, drawn by the seed, are judged.")
    unit, what = _units(table, cells[judged])
    of_cells = None if of_label is None else of_label[0][cells][judged]
    strongest = PCA_ROW + WITH_HARMONY
    found = judge_integration(
        {name: values[judged] for name, values in embeddings.items()},
        np.unique(codes[judged], return_inverse=True)[1].ravel(), of_cells, unit,
        against=(PCA_ROW, strongest) if run_harmony else (PCA_ROW,), n_replicates=n_replicates, seed=seed,
    )  # fmt: skip
    for name, values in embeddings.items():
        stored = _stored_key(name, key, key_added)
        if stored is not None:
            whole = np.full((table.n_obs, values.shape[1]), np.nan, dtype=np.float32)
            whole[cells] = values
            table.obsm[stored] = whole
    table.uns[key_added] = {
        "scores": found.scores, "differences": found.differences, "overall": found.overall,
        "notes": np.array(notes, dtype=object), "batches": np.array(batches, dtype=object), "n_cells": len(judged),
        "unit": what, "n_units": int(unit.max()) + 1, "resolutions": list(RESOLUTIONS),
        "parameters": {
            "key": key, "batch": batch, "label": label or "", "harmony": run_harmony, "centre": centre,
            "max_cells": max_cells, "n_replicates": n_replicates, "seed": seed,
        },
    }  # fmt: skip


def _embeddings(
    table: ad.AnnData,
    embedding: NDArray[np.float64],
    cells: NDArray[np.int64],
    batch: NDArray[np.int64],
    *,
    run_harmony: bool,
    centre: bool,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Return all rows of the table, ours first."""
    baselines = baseline_embeddings(sparse.csr_matrix(table.X)[cells], seed=seed)
    rows: dict[str, NDArray[np.float64]] = {}
    for name, values in {OURS: embedding, **baselines}.items():
        rows[name] = values
        if run_harmony and name not in (PROJECTION_ROW, RANDOM_ROW):
            rows[name + WITH_HARMONY] = harmony(values, batch, seed=seed)
        if centre and name == OURS:
            rows[name + CENTRED] = centred(values, batch)
    return rows


def stored_embeddings(table: ad.AnnData, key: str, key_added: str = INTEGRATION) -> dict[str, str]:
    """Return the embeddings that `integrate` judged and `obsm` holds: their names there, and their keys."""
    judged = [OURS, *pd.DataFrame(table.uns[key_added]["scores"])["method"]]
    found = {name: key if name == OURS else _stored_key(name, key, key_added) for name in judged}
    return {name: stored for name, stored in found.items() if stored is not None and stored in table.obsm}


def _stored_key(name: str, key: str, key_added: str) -> str | None:
    """Return where an embedding goes in `obsm`; None for what was there, and for what means nothing."""
    if name in (OURS, PROJECTION_ROW, RANDOM_ROW):
        return None
    ending = name.replace(WITH_HARMONY, "_harmony").replace(CENTRED, "_centred")
    if ending.startswith(OURS):
        return key + ending.removeprefix(OURS)
    return f"{key_added}_{ending.lower().replace(' + ', '_').replace(' ', '_')}"


def _check_size(batch: NDArray[np.int64], names: list[str], column: str) -> None:
    if len(batch) < _LEAST_CELLS:
        raise InputError(f"only {len(batch)} cells have an embedding and a batch; at least {_LEAST_CELLS} are needed.")
    if len(np.unique(batch)) < 2:
        raise InputError(
            f"all cells with an embedding are of batch {names[int(batch[0])]!r} (obs column {column!r}); there is "
            "nothing to integrate."
        )


def _notes(
    table: ad.AnnData,
    cells: NDArray[np.int64],
    of_batch: NDArray[np.int64],
    of_label: tuple[NDArray[np.int64], list[str]] | None,
    label: str | None,
) -> list[str]:
    """Say what was left out, a sentence each."""
    notes = []
    if len(cells) < table.n_obs:
        without_batch = int((of_batch < 0).sum())
        notes.append(
            f"{table.n_obs - len(cells):,} of {table.n_obs:,} cells are left out: they have no finite embedding"
            + (f" or, {without_batch:,} of them, no batch." if without_batch else ".")
        )
    if of_label is None:
        notes.append("Without labels nothing says whether identity is kept, so mixing is measured and not judged.")
        return notes
    code, names = of_label
    same = (
        len(np.unique(code[cells]))
        == len(np.unique(of_batch[cells]))
        == len(np.unique(np.stack([code[cells], of_batch[cells]]), axis=1).T)
    )
    if same:
        notes.append(
            f"Labels (obs column {label!r}) and batches are one and the same division of the cells: what keeps the one "
            "keeps the other, so neither identity nor mixing can be judged by them."
        )
    if len(np.unique(code[cells][code[cells] >= 0])) < 2:
        raise InputError(f"the embedded cells have fewer than 2 labels of obs column {label!r}.")
    if (code[cells] < 0).any():
        notes.append(f"{int((code[cells] < 0).sum()):,} cells without a label count for no metric of labels.")
    single = [name for number, name in enumerate(names) if (code[cells] == number).sum() == 1]
    if single:
        notes.append(
            f"Labels with one cell say nothing of mixing, and have no neighbour of their own: {', '.join(single)}."
        )
    return notes


def _units(table: ad.AnnData, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], str]:
    """Return what is drawn for intervals: tiles of tissue, or cells where there are no places."""
    if SPATIAL not in table.obsm:
        return np.arange(len(cells)), "cells"
    return spatial_tiles(places_of(table)[cells], slide_names(table)[cells]).code, "tiles"


def stored_integration(table: ad.AnnData, key: str = INTEGRATION) -> dict[str, Any]:
    """Return what `integrate` wrote.

    Raises
    ------
    InputError
        If it is not there.
    """
    stored = stored_result(table, key, "integration", "tl.integrate writes it")
    return {name: pd.DataFrame(part) if name == "scores" else part for name, part in stored.items()}

"""Do neighbouring cells look like neighbours to a model, or in any embedding? Judged on an AnnData."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaf_analysis.cell_pairs.compute import CellPairBenchmark, judge
from spaf_analysis.defaults import MAX_PAIRS, N_REPLICATES
from spaf_analysis.errors import InputError
from spaf_analysis.genes import genes_in_all
from spaf_analysis.keys import CELL_PAIRS, EMBEDDING, NEIGHBORS, SPLIT, TRAIN, VALIDATION
from spaf_analysis.metrics import (
    EMBEDDING as COSINE,
)
from spaf_analysis.metrics import (
    MODEL,
    RANDOM,
    CalibratedCosine,
    EvaluationOptions,
    PairScore,
    PlacedCells,
    drawn_tissue,
    random_twin,
)
from spaf_analysis.tables import embedding_of, grid_spacing, loaded, places_of, slide_names, table_of
from spaf_data import Distances
from spaf_model import EmbedsPairs, Model, check_key

if TYPE_CHECKING:
    import anndata as ad

    from spaf_model import Cells

_OF_SPACING = 1.15  # radius of neighbours among spots: those beside each other on an uneven grid, none diagonally
_FEW = 10  # cells of equal names, which two slides may have by chance
MAX_FITTED_CELLS = EvaluationOptions().max_fitted_cells


def benchmark_cell_pairs(
    adata: Cells,
    model: Model[Any, Any] | str | Path | None = None,
    *,
    key: str = EMBEDDING,
    train: Cells | None = None,
    radii: tuple[float, ...] | None = None,
    distances: Distances | None = None,
    max_pairs: int = MAX_PAIRS,
    max_fitted_cells: int = MAX_FITTED_CELLS,
    tower: bool = True,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
    table_key: str | None = None,
) -> CellPairBenchmark:
    """Judge cell-pair scores on held-out cells, beside baselines.

    What is judged: the model's probability that two cells are neighbours, where there is a model, and the cosine of an
    embedding, of this or any other model, seen from the centre of each judged slide. Beside them, on the same pairs,
    stand the baselines of `judge_cell_pairs` and, where there is a model, one of its shape with random weights.
    Whatever learns of places is fitted on training cells. `spaf_train.evaluate` gives the same figures for a corpus of
    the same cells.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X` and `obsm["spatial"]` in um, or a SpatialData. Its `obs["split"]` says which
        cells are "train" and "validation".
    model
        A model, a model directory or the name of a model that comes with spaf-model; the context (tissue, ...) is taken
        from `obs`. None judges the embedding alone.
    key
        The embedding in `obsm`; where it is missing and a model is given, the model embeds the cells.
    train
        Other cells to fit on, such as another slide: then all cells of `adata` are judged, and genes that both have
        are compared. None: the two splits of `adata`.
    radii
        Largest distances of neighbours in um; those of `radii_of` for the distances if None.
    distances
        Of neighbours and negatives, such as those of the corpus that the model was trained on; None: those that follow
        the radius of the cell graph of `adata`, or 30 um where it has none.
    max_pairs
        Largest number of positive pairs at each radius.
    max_fitted_cells
        About how many training cells are fitted on; of more, whole tiles of tissue are drawn.
    tower
        Train a small network by contrast of neighbours as a baseline, where there are 1,500 training cells; it takes
        some ten seconds.
    n_replicates
        Number of resampled tissues behind each interval.
    seed
        Seed of pairs and resampling.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    CellPairBenchmark
        See `spaf_analysis.cell_pairs.judge` for what may be missing.

    Raises
    ------
    InputError
        If it is not said which cells were held out, coordinates or embedding are missing, or the model refuses the
        cells.
    """
    table = table_of(adata, table_key)
    other = table if train is None else table_of(train, table_key)
    if train is not None and other is table:
        raise InputError("train holds the cells that are judged; give another slide, or leave it out for obs['split'].")
    if train is not None:
        _refuse_copies(table, other)
    distances = distances_of(table) if distances is None else distances
    options = EvaluationOptions(radii=radii, max_pairs=max_pairs, tower=tower, n_replicates=n_replicates, seed=seed)
    model = None if model is None else loaded(model)
    held_out, fitted = _regions(table) if train is None else (np.arange(table.n_obs), np.arange(other.n_obs))
    embedding = _embedding(table, key, model)
    held_out = held_out[np.isfinite(embedding[held_out]).all(axis=1)]
    fitted_places, fitted_slides = places_of(other)[fitted], slide_names(other)[fitted]
    drawn = drawn_tissue(fitted_places, fitted_slides, max_cells=max_fitted_cells, distances=distances, seed=seed)
    fitted = fitted[drawn]
    judged_counts, fitted_counts = table.X[held_out], other.X[fitted]
    if not table.var_names.equals(other.var_names):
        genes = genes_in_all((table, other), ("the judged table", "the table of train"), least=2)
        judged_counts, fitted_counts = genes.counts(judged_counts, 0), genes.counts(fitted_counts, 1)
    judged_cells = PlacedCells.of(judged_counts, places_of(table)[held_out], slide_names(table)[held_out])
    fitted_cells = PlacedCells.of(fitted_counts, fitted_places[drawn], fitted_slides[drawn])

    scores: dict[str, PairScore] = {}
    head = None if model is None else CalibratedCosine.find(model.source)
    if head is None and isinstance(model, EmbedsPairs):
        scores[MODEL] = _pair_head(model, table, held_out)
    embeddings = {COSINE: embedding[held_out]}
    if model is not None:
        embeddings[RANDOM] = np.nan_to_num(embedding_of(random_twin(model, seed), table, held_out))
    return judge(judged_cells, fitted_cells, scores, embeddings, head=head, options=options, distances=distances)


def cell_pairs(
    adata: Cells,
    model: Model[Any, Any] | str | Path | None = None,
    *,
    key: str = EMBEDDING,
    train: Cells | None = None,
    radii: tuple[float, ...] | None = None,
    distances: Distances | None = None,
    max_pairs: int = MAX_PAIRS,
    max_fitted_cells: int = MAX_FITTED_CELLS,
    tower: bool = True,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = CELL_PAIRS,
) -> None:
    """Judge cell-pair scores on held-out cells, beside baselines, into `uns[key_added]`.

    Written: a dict with the tables `scores` and `differences` of `CellPairEvaluation`, or with the `reason` why there
    are none, numbers of cells, and `parameters`.

    Parameters
    ----------
    adata, model, key, train, radii, distances, max_pairs, max_fitted_cells, tower, n_replicates, seed, table_key
        As for `benchmark_cell_pairs`.
    key_added
        Key of `uns` to write.

    Raises
    ------
    InputError
        As `benchmark_cell_pairs`.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    distances = distances_of(table) if distances is None else distances
    judged = benchmark_cell_pairs(
        table, model, key=key, train=None if train is None else table_of(train, table_key), radii=radii,
        distances=distances, max_pairs=max_pairs, max_fitted_cells=max_fitted_cells, tower=tower,
        n_replicates=n_replicates, seed=seed,
    )  # fmt: skip
    source = model.source if isinstance(model, Model) else "" if model is None else str(model)
    parameters = {
        "key": key, "model": source, "max_pairs": max_pairs, "max_fitted_cells": max_fitted_cells, "tower": tower,
        "n_replicates": n_replicates, "seed": seed, "distances": asdict(distances),
    }  # fmt: skip
    table.uns[key_added] = judged.stored() | {"parameters": parameters}


def distances_of(table: ad.AnnData) -> Distances:
    """Return the distances that follow the radius of a table's cell graph.

    Without such a graph the usual ones; of spots on a grid that are further apart than these reach, one spacing.
    """
    parameters = dict(table.uns.get(NEIGHBORS, {})).get("params", {})
    radius = parameters.get("radius") if parameters.get("method") == "radius" else None
    if radius is not None:
        return Distances(positive=float(radius))
    spacing = grid_spacing(places_of(table), slide_names(table))
    usual = Distances()
    return usual if spacing is None or spacing <= usual.positive else Distances(positive=_OF_SPACING * spacing)


def _regions(table: ad.AnnData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the held-out and the training cells."""
    if SPLIT not in table.obs:
        raise InputError(
            f"obs has no column {SPLIT!r} that says which cells were held out; it has: {', '.join(table.obs)}."
        )
    split = table.obs[SPLIT].astype(str).to_numpy()
    return np.flatnonzero(split == VALIDATION), np.flatnonzero(split == TRAIN)


def _embedding(table: ad.AnnData, key: str, model: Model[Any, Any] | None) -> NDArray[np.float64]:
    """Return the embedding of all cells, NaN where there is none."""
    if key in table.obsm:
        return np.asarray(table.obsm[key], dtype=np.float64)
    if model is None:
        raise InputError(f"obsm has no embedding {key!r}; it has: {', '.join(table.obsm) or 'nothing'}.")
    return embedding_of(model, table, np.arange(table.n_obs))


def _refuse_copies(table: ad.AnnData, other: ad.AnnData) -> None:
    """Refuse cells to fit on that are judged too, as those of a copied file are: of equal genes, names and totals."""
    shared = table.obs_names.intersection(other.obs_names)
    names_are_clear = table.obs_names.is_unique and other.obs_names.is_unique
    if len(shared) < _FEW or not names_are_clear or not table.var_names.equals(other.var_names):
        return
    totals = [np.asarray(one.X.sum(axis=1)).ravel()[one.obs_names.get_indexer(shared)] for one in (table, other)]
    n_equal = int((totals[0] == totals[1]).sum())
    if 2 * n_equal > len(shared):
        raise InputError(
            f"train holds the cells that are judged: {n_equal:,} have the names and totals of judged ones, such as "
            f"{str(shared[0])!r}; give another slide, or leave it out for obs['split']."
        )


def _pair_head(model: EmbedsPairs, table: ad.AnnData, cells: NDArray[np.int64]) -> PairScore:
    def probability(left: NDArray[np.integer], right: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.asarray(model.embed_pairs(table, cells[left], cells[right]).probabilities, dtype=np.float64)

    return probability

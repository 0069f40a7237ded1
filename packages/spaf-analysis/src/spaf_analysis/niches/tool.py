"""Niches of an AnnData: states with their neighbours', domains, and how well these find regions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.defaults import MAX_NICHES, N_NEIGHBORS, N_REPLICATES, NICHE_SCALES
from spaf_analysis.errors import InputError
from spaf_analysis.keys import EMBEDDING, NICHE_STATE, NICHES
from spaf_analysis.metrics import pca_embedding, spatial_tiles
from spaf_analysis.niches import baselines
from spaf_analysis.niches.domains import METHODS, Domains, Method, find_domains
from spaf_analysis.niches.judging import judge_domains
from spaf_analysis.niches.state import expression_components, niche_state
from spaf_analysis.tables import (
    check_radius,
    embedded_cells,
    labels_of,
    places_of,
    slide_names,
    table_of,
)
from spaf_model import check_key

if TYPE_CHECKING:
    import anndata as ad

    from spaf_model import Cells

Inputs = Literal["both", "embedding", "expression"]
INPUTS: tuple[Inputs, ...] = ("both", "embedding", "expression")

logger = logging.getLogger(__name__)


def niches(
    adata: Cells,
    *,
    key: str = EMBEDDING,
    inputs: Inputs = "both",
    n_domains: int | None = None,
    method: Method = "kmeans",
    n_neighbors: int = N_NEIGHBORS,
    radius: float | None = None,
    centre_slides: bool = True,
    seed: int = 0,
    n_threads: int = 1,
    table_key: str | None = None,
    key_added: str = NICHES,
    state_key_added: str = NICHE_STATE,
) -> None:
    """Find niches: domains of cells by what surrounds them, the same across slides.

    Parameters
    ----------
    adata
        Cells x genes with `obsm["spatial"]`, an embedding in `obsm`, counts in `X` and, of several slides, the slide in
        `obs`, or a SpatialData. Written: `obsm[state_key_added]`, the state of each cell together with its neighbours'
        (float32; NaN for cells without an embedding); `obs[key_added]`, a categorical of niche numbers "1", "2", ...
        from the largest to the smallest; parameters, and the `stability` of each number of niches where it was chosen,
        in `uns[key_added]`.
    key
        The embedding in `obsm`, of this or any other model.
    inputs
        What is averaged over neighbours: "embedding"; "expression", principal components of the slide's own counts
        (z-scored and Pearson residuals), which needs no embedding; or "both".
    n_domains
        Number of niches, 2 or more; None chooses the one, of 3 to 15, on which halves of the tissue agree (2
        where there are too few cells to ask).
    method
        "kmeans" or "mixture" (of Gaussians).
    n_neighbors
        Nearest cells that count, beside the cell itself; of spots on a grid whole rings.
    radius
        Cells further away than this (um) do not count; None: however far they are, so that the unit does not matter.
    centre_slides
        Take away what sets slides apart as a whole; turn it off for slides of one technology
        that hold different tissue.
    seed
        Of everything random.
    n_threads
        Of the search for neighbours.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added, state_key_added
        Column of `obs`, and key of `obsm`, to write.

    Raises
    ------
    InputError
        If embedding or coordinates are missing, an option makes no sense, or there are fewer cells than niches.
    """
    check_key(key_added)
    check_key(state_key_added, "state_key_added")
    table = table_of(adata, table_key)
    chosen_inputs(inputs, method)
    state, cells = state_of(
        table, key=key, inputs=inputs, n_neighbors=n_neighbors, radius=radius, centre_slides=centre_slides, seed=seed,
        n_threads=n_threads,
    )  # fmt: skip
    found = _domains(table, state, cells, n_domains, method, seed)
    whole = np.full((table.n_obs, state.shape[1]), np.nan, dtype=np.float32)
    whole[cells] = state
    code = np.full(table.n_obs, -1, dtype=np.int64)
    code[cells] = found.code
    if state_key_added in table.obsm and dict(table.uns.get(key_added, {})).get("parameters", {}).get("state") is None:
        logger.warning("obsm[%r], which another analysis wrote, is replaced by the state of niches.", state_key_added)
    table.obsm[state_key_added] = whole
    table.obs[key_added] = pd.Categorical.from_codes(code, categories=pd.Index([str(n) for n in range(1, found.n + 1)]))
    table.uns[key_added] = {
        "n_domains": found.n,
        "is_chosen": n_domains is None,
        "stability": found.stability,
        "parameters": {
            "key": key, "inputs": inputs, "method": method, "n_neighbors": n_neighbors,
            "radius": float("nan") if radius is None else radius, "scales": list(NICHE_SCALES),
            "centre_slides": centre_slides, "seed": seed, "state": state_key_added,
        },
    }  # fmt: skip


def state_of(
    table: ad.AnnData,
    *,
    key: str = EMBEDDING,
    inputs: Inputs = "both",
    n_neighbors: int = N_NEIGHBORS,
    radius: float | None = None,
    centre_slides: bool = True,
    seed: int = 0,
    n_threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the niche state of the cells that have one, and their positions; parameters and errors as for `niches`."""
    if n_neighbors < 1:
        raise InputError(f"n_neighbors must be at least 1, not {n_neighbors}.")
    coordinates, slide = places_of(table), slide_names(table)
    if inputs == "expression":
        states, cells = [], np.arange(table.n_obs)
        if len(cells) < 3:
            raise InputError(f"the table holds {len(cells)} cells; at least 3 are needed.")
    else:
        embedding, cells = embedded_cells(table, key)
        states = [embedding]
    if radius is not None:
        check_radius(coordinates[cells], slide[cells], radius, "radius")
    if inputs != "embedding":
        states += expression_components(sparse.csr_matrix(table.X)[cells], slide[cells], seed=seed)
    state = niche_state(
        states, coordinates[cells], slide[cells], n_neighbors=n_neighbors, radius=radius, centre_slides=centre_slides,
        n_threads=n_threads,
    )  # fmt: skip
    return state, cells


def judge_niches(
    adata: Cells,
    label: str,
    *,
    key: str = EMBEDDING,
    n_neighbors: int = N_NEIGHBORS,
    method: Method = "kmeans",
    seeds: Sequence[int] = range(5),
    n_replicates: int = N_REPLICATES,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Judge niches against labelled regions, beside baselines that need no model.

    As many domains as there are regions are asked of every method.

    Parameters
    ----------
    adata
        Cells x genes with counts in `X`, `obsm["spatial"]` and the embedding, or a SpatialData.
    label
        Column of `obs` with the regions; cells without one take part in the domains and are not judged.
    key
        The embedding; without it in `obsm` its rows are left out.
    n_neighbors
        For all methods.
    method
        How niche states are clustered; baselines are clustered by k-means.
    seeds
        Of the clusterings.
    n_replicates
        Resampled tissues behind each interval.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    pandas.DataFrame
        As `judge_domains`: adjusted Rand index and normalised mutual information of niches from both inputs, the
        embedding alone and expression alone; and of PCA without neighbours, PCA averaged twice over neighbours (the
        baseline that others are compared with), joint Leiden of expression and space, and the composition of clusters.

    Raises
    ------
    InputError
        If there is no such column, it has one value or too many, or coordinates are missing.
    """
    table = table_of(adata, table_key)
    code, names = labels_of(table, label, "label")
    seeds, n = list(seeds), len(names)
    found = niche_domains(table, n, key=key, n_neighbors=n_neighbors, method=method, seeds=seeds)
    found |= baseline_domains(table, n, key=key, n_neighbors=n_neighbors, seeds=seeds)
    cells = _judged_cells(table, key)
    tiles = spatial_tiles(places_of(table)[cells], slide_names(table)[cells])
    return judge_domains(found, code[cells], tiles, against=AVERAGED, n_replicates=n_replicates)


def niche_domains(
    table: ad.AnnData,
    n: int,
    *,
    key: str = EMBEDDING,
    n_neighbors: int = N_NEIGHBORS,
    method: Method = "kmeans",
    seeds: Sequence[int] = range(5),
    inputs: Sequence[Inputs] | None = None,
) -> dict[str, list[NDArray[np.int64]]]:
    """Return the domains of each choice of inputs, once a seed, of the cells with an embedding (all where none is)."""
    cells = _judged_cells(table, key)
    coordinates, slide = places_of(table)[cells], slide_names(table)[cells]
    tiles = spatial_tiles(coordinates, slide)
    found: dict[str, list[NDArray[np.int64]]] = {}
    for kind in inputs or (INPUTS if key in table.obsm else ("expression",)):
        state, of_state = state_of(table, key=key, inputs=kind, n_neighbors=n_neighbors)
        if kind == "expression":
            state = state[np.isin(of_state, cells)]
        found[f"niches, {kind}"] = [find_domains(state, n, tiles.code, method=method, seed=seed).code for seed in seeds]
    return found


def baseline_domains(
    table: ad.AnnData,
    n: int,
    *,
    key: str = EMBEDDING,
    n_neighbors: int = N_NEIGHBORS,
    seeds: Sequence[int] = range(5),
) -> dict[str, list[NDArray[np.int64]]]:
    """Return what niches have to beat, in the same form as `niche_domains` and of the same cells."""
    cells = _judged_cells(table, key)
    coordinates, slide = places_of(table)[cells], slide_names(table)[cells]
    components = pca_embedding(sparse.csr_matrix(table.X)[cells], np.arange(len(cells))).coordinates
    averaged = baselines.averaged(components, coordinates, slide, n_neighbors=n_neighbors)
    of_clusters = baselines.composition(components, coordinates, slide, n_neighbors=n_neighbors)
    rows: dict[str, Callable[[int], NDArray[np.int64]]] = {
        "PCA": baselines.kmeans(components, n),
        AVERAGED: baselines.kmeans(averaged, n),
        "joint Leiden": baselines.joint_leiden(components, coordinates, slide, n, n_neighbors=n_neighbors),
        "composition of clusters": baselines.kmeans(of_clusters, n),
    }
    return {name: [of_seed(seed) for seed in seeds] for name, of_seed in rows.items()}


def _judged_cells(table: ad.AnnData, key: str) -> NDArray[np.int64]:
    return embedded_cells(table, key)[1] if key in table.obsm else np.arange(table.n_obs)


AVERAGED = "PCA averaged twice"


def chosen_inputs(inputs: str, method: str) -> tuple[Inputs, Method]:
    """Return both options, which must be among their choices.

    Raises
    ------
    InputError
        If one is not.
    """
    for name, value, choices in (("inputs", inputs, INPUTS), ("method", method, METHODS)):
        if value not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return cast("Inputs", inputs), cast("Method", method)


def _domains(
    table: ad.AnnData,
    state: NDArray[np.float32],
    cells: NDArray[np.int64],
    n_domains: int | None,
    method: Method,
    seed: int,
) -> Domains:
    if n_domains is not None and not 2 <= n_domains <= len(cells):
        raise InputError(f"n_domains must be from 2 to the number of cells ({len(cells)}), not {n_domains}.")
    tiles = spatial_tiles(places_of(table)[cells], slide_names(table)[cells])
    return find_domains(state, n_domains, tiles.code, method=method, candidates=range(3, MAX_NICHES + 1), seed=seed)

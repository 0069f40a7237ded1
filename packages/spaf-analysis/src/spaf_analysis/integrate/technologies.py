"""Two technologies together: an embedding on the genes of both, and how well it finds a place that both have seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts, shared_genes
from spaf_analysis.imputation.compute import LEAST_SHARED, fit_imputation
from spaf_analysis.imputation.spaces import log_counts, moments
from spaf_analysis.integrate.baselines import components
from spaf_analysis.metrics import spatial_tiles
from spaf_analysis.tables import check_cell_names, labels_of, places_of, table_of

if TYPE_CHECKING:
    import anndata as ad

    from spaf_model import Cells

RADIUS = 60.0  # um around a spot: a spot of Visium is 55 um wide, and frames are registered to some um
N_COMPLETED = 500  # genes of one technology alone that the other is given
N_COMPONENTS = 30
_LEAST_EXPECTED = 0.1  # accuracy from which an imputed gene is used
_LEAST_CELLS, _LEAST_SPOTS = 3, 20
_NEAREST = 10


def completed_embedding(
    one: ad.AnnData, other: ad.AnnData, *, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed cells of two technologies on the genes of both: what one lacks is imputed from the other.

    Logarithms are standardised gene by gene within each technology, imputed genes and what they stand for weighted by
    their expected accuracy (`spaf_analysis.tl.impute`), and both reduced to 30 components together. Neither places nor
    labels are read.

    Parameters
    ----------
    one, other
        Cells or spots x genes with counts in `X`.
    seed
        Of the imputation.

    Returns
    -------
    tuple
        The embedding of each.

    Raises
    ------
    InputError
        If a table holds no counts, or the two share too few genes.
    """
    tables = (one, other)
    where = ("the first table", "the second table")
    counts = [checked_counts(table, None, name) for table, name in zip(tables, where, strict=True)]
    shared = shared_genes(one, other, where)
    if len(shared.names) < LEAST_SHARED:
        raise InputError(f"the tables share {len(shared.names)} genes; at least {LEAST_SHARED} are needed.")
    read = [shared.counts(counts[at], at) for at in (0, 1)]
    parts = [[_standard(log_counts(part).toarray())] for part in read]
    for lacking, having in ((0, 1), (1, 0)):
        alone = np.flatnonzero(shared.columns[having] < 0)
        depth = np.asarray(counts[having].sum(axis=1), dtype=np.float64).ravel()
        known = log_counts(counts[having], depth)[:, alone]
        chosen = np.argsort(-moments(known)[1], kind="stable")[:N_COMPLETED]
        if chosen.size == 0:
            continue
        wanted = counts[having][:, alone[chosen]]
        names = [*shared.names, *(f"alone {gene}" for gene in chosen)]
        found = fit_imputation(read[lacking], read[having], wanted, names, depth=depth, seed=seed)
        expected = found.genes["expected"].to_numpy(dtype=np.float32)
        used = np.flatnonzero(expected >= _LEAST_EXPECTED)
        parts[lacking].append(_standard(found.dense()[:, used]) * expected[used])
        parts[having].append(_standard(known[:, chosen[used]].toarray()) * expected[used])
    joined = np.vstack([np.hstack(part) for part in parts])
    axes = components(joined, n_components=N_COMPONENTS, seed=seed).astype(np.float32)
    return axes[: one.n_obs], axes[one.n_obs :]


@dataclass(frozen=True)
class RegisteredPlaces:
    """Spots that have cells of the other technology around them.

    Attributes
    ----------
    spots, cells
        Rows of the table: spots with enough cells, and all cells of the other technology.
    places
        Of these spots, n_spots x 2, um.
    means
        n_spots x n_cells: what takes the mean over the cells around each spot.
    """

    spots: NDArray[np.int64]
    cells: NDArray[np.int64]
    places: NDArray[np.float64]
    means: sparse.csr_matrix


def registered_places(table: ad.AnnData, *, batch: str, radius: float) -> RegisteredPlaces:
    """Find the places that both technologies have seen; parameters and errors are those of `registered_pairs`."""
    code, names = labels_of(table, batch, "batch")
    if len(names) != 2:
        raise InputError(f"registered places are of two technologies, and obs column {batch!r} names {len(names)}.")
    if not 0.0 < radius < float("inf"):
        raise InputError(f"the radius of registered places must be above 0 um, not {radius:g}.")
    of_spots = int(np.argmin(np.bincount(code[code >= 0])))
    spots, cells = np.flatnonzero(code == of_spots), np.flatnonzero(code == 1 - of_spots)
    xy = places_of(table)
    near = [np.asarray(some, dtype=np.int64) for some in cKDTree(xy[cells]).query_ball_point(xy[spots], radius)]
    used = np.flatnonzero([some.size >= _LEAST_CELLS for some in near])
    if used.size < _LEAST_SPOTS:
        raise InputError(
            f"{used.size} spots have {_LEAST_CELLS} cells within {radius:g} um, and {_LEAST_SPOTS} are needed; are "
            "both in one frame, in um?"
        )
    sizes = np.array([near[spot].size for spot in used])
    columns = np.concatenate([near[spot] for spot in used])
    ends = np.concatenate([[0], np.cumsum(sizes)])
    means = sparse.csr_matrix((np.repeat(1.0 / sizes, sizes), columns, ends), shape=(used.size, cells.size))
    return RegisteredPlaces(spots[used], cells, xy[spots][used], means)


def registered_pairs(
    adata: Cells,
    *,
    batch: str,
    keys: Mapping[str, str],
    radius: float = RADIUS,
    n_replicates: int = 300,
    seed: int = 0,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Judge embeddings of two technologies by places that both have seen, in one frame.

    Each spot (of the batch with fewer cells) is held against what lies around it in the other batch: the mean embedding
    of the cells within a radius, both centred by technology.

    Parameters
    ----------
    adata
        Both technologies, with ``obsm["spatial"]`` in one frame, or a SpatialData.
    batch
        Column of `obs` with two values.
    keys
        By the name of an embedding its key in `obsm`.
    radius
        In um.
    n_replicates, seed
        Of the intervals, over tiles of the tissue.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    pandas.DataFrame
        A row an embedding: `method`, `auroc` (how often the surroundings of a spot are more like it, by cosine, than
        those of a spot further than two radii away; .5 by chance) with `auroc_low` and `auroc_high`, `top` (share of
        spots whose own surroundings are among the ten most alike of all), `n_spots`.

    Raises
    ------
    InputError
        If there are not two batches, or fewer than 20 spots have 3 cells around them.
    """
    table = table_of(adata, table_key)
    check_cell_names(table)
    seen = registered_places(table, batch=batch, radius=radius)
    tile = spatial_tiles(seen.places, np.zeros(seen.spots.size, dtype=np.int64)).code
    rows = []
    for name, key in keys.items():
        embedding = np.nan_to_num(np.asarray(table.obsm[key], dtype=np.float64))
        around = np.asarray(seen.means @ embedding[seen.cells])
        own, top = retrieval(embedding[seen.spots], around, seen.places, 2.0 * radius)
        low, high = _interval(own, tile, n_replicates, seed)
        rows.append((name, float(np.nanmean(own)), low, high, float(top.mean()), seen.spots.size))
    return pd.DataFrame(rows, columns=["method", "auroc", "auroc_low", "auroc_high", "top", "n_spots"])


def retrieval(
    spots: NDArray[np.float64], around: NDArray[np.float64], places: NDArray[np.float64], apart: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Say how well each spot finds its own surroundings among those of all.

    Parameters
    ----------
    spots, around
        (n_spots, n_dimensions), of the one technology and the other.
    places
        (n_spots, 2), um.
    apart
        Surroundings of spots this far away are compared with.

    Returns
    -------
    tuple
        (n_spots,) share of those that are less alike than its own, NaN where there are none; whether its own are among
        the ten most alike.
    """
    one, other = (_unit(part - part.mean(axis=0)) for part in (spots, around))
    likeness = one @ other.T
    own = np.diag(likeness)[:, None]
    far = ((places[:, None] - places[None]) ** 2).sum(axis=-1) > apart**2
    lower = (likeness < own) + 0.5 * (likeness == own)
    n_far = far.sum(axis=1)
    share = np.full(len(spots), np.nan)
    np.divide((lower * far).sum(axis=1), n_far, out=share, where=n_far > 0)
    return share, np.asarray((likeness > own).sum(axis=1) < _NEAREST)


def _interval(
    values: NDArray[np.float64], tile: NDArray[np.int64], n_replicates: int, seed: int
) -> tuple[float, float]:
    known = np.isfinite(values)
    n_tiles = int(tile.max()) + 1
    sums = np.bincount(tile[known], values[known], minlength=n_tiles)
    sizes = np.bincount(tile[known], minlength=n_tiles).astype(np.float64)
    drawn = np.random.default_rng(seed).multinomial(n_tiles, np.full(n_tiles, 1.0 / n_tiles), size=n_replicates)
    low, high = np.quantile((drawn @ sums) / np.maximum(drawn @ sizes, 1.0), (0.025, 0.975))
    return float(low), float(high)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: NDArray[np.float64] = values / np.where(length > 0.0, length, 1.0)
    return unit


def _standard(values: NDArray[np.float32]) -> NDArray[np.float32]:
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0), dtype=np.float32)

"""What a table of cells says to the ligand-receptor analysis, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.conditions import compared_donors
from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts
from spaf_analysis.ligrec.compute import feature_values
from spaf_analysis.metrics import log_normalize
from spaf_analysis.tables import check_cell_names, check_radius, labels_of, places_of, slide_names
from spaf_data import genes_of_table

if TYPE_CHECKING:
    import anndata as ad

_LEAST_SHARE = 0.5  # of the cells that must have another one in their stratum


@dataclass(frozen=True)
class Inputs:
    """The cells that are used, and what is known of each.

    Attributes
    ----------
    used
        Rows of the table; everything else here is of these cells alone.
    genes
        Column of each gene, by its names.
    values
        Cells x genes: logarithms of counts per 10,000, plus 1.
    coordinates
        In um.
    block
        (n_cells, 2): image (slide and donor) and tile of it.
    kind, stratum
        Type of each cell; and type, tile and image as one number.
    unit
        Donor of each image.
    donors, is_first, conditions
        Names; which have the first condition; the two. One donor without a name where none are given.
    types
        Names; one without a name where none are given.
    bandwidth
        Of the kernel, in um.
    """

    used: NDArray[np.int64]
    genes: dict[str, int]
    values: sparse.csr_matrix
    coordinates: NDArray[np.float64]
    block: NDArray[np.int64]
    kind: NDArray[np.int64]
    stratum: NDArray[np.int64]
    unit: NDArray[np.int64]
    donors: list[str]
    is_first: NDArray[np.bool_] | None
    conditions: tuple[str, ...]
    types: list[str]
    bandwidth: float

    def values_of(self, features: list[tuple[int, ...]]) -> sparse.csr_matrix:
        """Return cells x features; a complex has the smallest value of its subunits."""
        return feature_values(self.values, features)


def inputs_of(
    table: ad.AnnData,
    *,
    cell_type: str | None,
    donor: str | None,
    bandwidth: float,
    tile: float,
    condition: str | None = None,
    contrast: tuple[str, str] | None = None,
    layer: str | None = None,
) -> Inputs:
    """Read and check; see `spaf_analysis.tl.ligrec` for what is raised."""
    for name, value in (("bandwidth", bandwidth), ("tile", tile)):
        if not 0 < value < float("inf"):
            raise InputError(f"{name} must be above 0 um, not {value:g}.")
    if condition is not None and donor is None:
        raise InputError("conditions are compared between donors: name the column of donors too (donor).")
    check_cell_names(table)
    code, types = np.zeros(table.n_obs, dtype=np.int64), [""]
    if cell_type is not None:
        code, types = labels_of(table, cell_type, "cell_type", least=1)
    of_donor, donors, is_first, conditions = _donors(table, donor, condition, contrast)
    used = np.flatnonzero((code >= 0) & (of_donor >= 0))
    coordinates = places_of(table)[used]
    image, of_image = pd.MultiIndex.from_arrays([slide_names(table)[used], of_donor[used]]).factorize(sort=True)
    check_radius(coordinates, image, bandwidth, "bandwidth")
    counts = checked_counts(table, layer, "the table")[used]
    block = np.stack([image, _tiles(coordinates, image, tile)], axis=1)
    stratum = pd.MultiIndex.from_arrays([image, block[:, 1], code[used]]).factorize()[0]
    _check_strata(stratum, code[used], types, tile)
    return Inputs(
        used, _genes(table), log_normalize(counts), coordinates, block, code[used], stratum,
        np.array([which for _, which in of_image], dtype=np.int64), donors, is_first, conditions, types, bandwidth,
    )  # fmt: skip


def _donors(
    table: ad.AnnData, donor: str | None, condition: str | None, contrast: tuple[str, str] | None
) -> tuple[NDArray[np.int64], list[str], NDArray[np.bool_] | None, tuple[str, ...]]:
    """Return the donor of each cell, donors, and with a condition which have the first, and what both are called."""
    if donor is None:
        return np.zeros(table.n_obs, dtype=np.int64), [""], None, ()
    if condition is not None:
        return compared_donors(table, condition, donor, contrast)
    code, names = labels_of(table, donor, "donor", least=1)
    if len(names) < 2:
        raise InputError(
            f"all cells are of one donor ({names[0]!r}), which does not say how another would differ; leave donor out "
            "to test within the slide."
        )
    return code, names, None, ()


def _genes(table: ad.AnnData) -> dict[str, int]:
    """Return the column of each gene by symbol and by id."""
    found = genes_of_table(table.var, "the table")
    ids = found.gene_ids or []
    columns: dict[str, int] = {}
    for column, name in enumerate(found.names):
        if columns.setdefault(str(name), column) != column:
            raise InputError(f"the table has two genes named {str(name)!r}; make gene names unique first.")
    for column, gene_id in enumerate(ids):
        if gene_id:
            columns.setdefault(str(gene_id), column)
    return columns


def _tiles(coordinates: NDArray[np.float64], image: NDArray[np.int64], tile: float) -> NDArray[np.int64]:
    """Return the square of each cell, from the least coordinates of its image, numbered along strips."""
    low = np.full((image.max() + 1, 2), np.inf)
    np.minimum.at(low, image, coordinates)
    column, row = np.floor((coordinates - low[image]) / tile).astype(np.int64).T
    return np.asarray(column * (row.max() + 1) + row)


def _check_strata(stratum: NDArray[np.int64], code: NDArray[np.int64], types: list[str], tile: float) -> None:
    """Raise `InputError` where most cells have no other one with which they could change places."""
    alone = np.bincount(stratum)[stratum] < 2
    if 1 - alone.mean() >= _LEAST_SHARE:
        return
    sizes = np.bincount(code, minlength=len(types))
    share = np.bincount(code[alone], minlength=len(types)) / np.maximum(sizes, 1)
    worst = int(np.argmax(np.where(sizes > 0, share, -1)))
    raise InputError(
        f"only {int((~alone).sum()):,} of {len(alone):,} cells have another one of their type in their tile of "
        f"{tile:g} um (fewest those of type {types[worst] or 'any'!r}: {sizes[worst]:,} cells), so nothing can be "
        "permuted; give a larger tile or coarser types."
    )

"""Scores of ligand-receptor pairs at each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.errors import InputError
from spaf_analysis.keys import LIGREC, SPATIAL
from spaf_analysis.ligrec.inputs import Inputs, inputs_of
from spaf_analysis.ligrec.moments import StratumMeans, around, sums_inside
from spaf_analysis.ligrec.resource import subunits_of
from spaf_analysis.tables import stored_result, table_of

if TYPE_CHECKING:
    from spaf_model import Cells


def ligand_receptor_scores(
    adata: Cells, *, only_called: bool = False, key: str = LIGREC, table_key: str | None = None
) -> ad.AnnData:
    """Return how strong each pair that `spaf_analysis.tl.ligrec` tested is at each cell that has the receptor.

    Parameters
    ----------
    adata
        Cells with `uns[key]`, or a SpatialData.
    only_called
        Only the pairs that were called.
    key
        What `tl.ligrec` wrote.
    table_key
        Table of a SpatialData; may be None where it has only one.

    Returns
    -------
    AnnData
        Cells x pairs (named "ligand|receptor"). `X`, CSR: the receptor of a cell times the ligand of the cells around
        it, weighted by the kernel. `layers["excess"]`: the same less what it would be on average if all other cells
        were dealt anew within type and tile. `var` has the rows of the table. A value is stored where the receptor is
        seen.

    Raises
    ------
    InputError
        If it is not there, or no pair was called.
    """
    table = table_of(adata, table_key)
    found = stored_pairs(table, key, only_called=only_called)
    pairs, inputs = found.pairs, found.inputs
    score, excess = local_scores(inputs, found.ligands, found.receptors)
    scores = ad.AnnData(
        _of_all_cells(score, inputs.used, table.n_obs), obs=table.obs.copy(),
        var=pairs.set_index(pairs["ligand"] + "|" + pairs["receptor"]),
    )  # fmt: skip
    scores.layers["excess"] = _of_all_cells(excess, inputs.used, table.n_obs)
    scores.obsm[SPATIAL] = np.asarray(table.obsm[SPATIAL]).copy()
    return scores


@dataclass(frozen=True)
class StoredPairs:
    """Pairs that were tested, and the cells that they were tested in.

    Attributes
    ----------
    pairs
        Rows of the table.
    ligands, receptors
        Columns of `inputs` that make either side.
    inputs
        The cells, read again with the options that were stored.
    parameters
        These options.
    """

    pairs: pd.DataFrame
    ligands: list[tuple[int, ...]]
    receptors: list[tuple[int, ...]]
    inputs: Inputs
    parameters: Mapping[str, Any]


def stored_pairs(table: ad.AnnData, key: str, *, only_called: bool) -> StoredPairs:
    """Return what `tl.ligrec` tested, with the cells.

    Raises
    ------
    InputError
        If it is not there, or no pair was called.
    """
    stored = stored_result(table, key, "ligand-receptor pairs", "tl.ligrec writes them")
    pairs = pd.DataFrame(stored["table"])
    if only_called:
        pairs = pairs[pairs["called"].to_numpy(dtype=bool)]
    if pairs.empty:
        raise InputError(f"no ligand-receptor pair of uns[{key!r}] was called.")
    options = stored["parameters"]
    inputs = inputs_of(
        table, cell_type=options["cell_type"] or None, donor=options["donor"] or None, bandwidth=options["bandwidth"],
        tile=options["tile"], layer=options["layer"] or None,
    )  # fmt: skip
    ligands, receptors = (
        [tuple(inputs.genes[part] for part in subunits_of(name, inputs.genes)) for name in pairs[side]]
        for side in ("ligand", "receptor")
    )
    return StoredPairs(pairs, ligands, receptors, inputs, options)


def local_scores(
    inputs: Inputs, ligands: list[tuple[int, ...]], receptors: list[tuple[int, ...]]
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return the score of each cell and pair, and its excess: both CSR, with a value where the receptor is seen.

    Notes
    -----
    Some tiles at a time: memory is that of the result, and of the cells of a few tiles times the pairs.
    """
    ligand, receptor = inputs.values_of(ligands), inputs.values_of(receptors)
    means = StratumMeans(ligand, inputs.stratum)
    others = np.maximum(np.bincount(inputs.stratum) - 1, 1)[inputs.stratum]
    parts: list[tuple[NDArray[np.int64], sparse.csr_matrix, NDArray[np.float32]]] = []
    for cells, weights, beside in around(inputs.coordinates, inputs.block, inputs.bandwidth):
        own = sparse.csr_matrix(receptor[cells])
        row = np.repeat(np.arange(len(cells)), np.diff(own.indptr))
        near = weights @ ligand[beside].toarray()
        # A cell is not beside itself: the others of its stratum have on average what it has less, or more, than all.
        inside = sums_inside(weights, inputs.stratum[cells], inputs.stratum[beside]) / others[cells]
        chance = weights @ means(beside) - (ligand[cells].toarray() - means(cells)) * inside[:, None]
        values = own.data * near[row, own.indices]
        excess = (values - own.data * chance[row, own.indices]).astype(np.float32)
        parts.append(
            (cells, sparse.csr_matrix((values.astype(np.float32), own.indices, own.indptr), shape=own.shape), excess)
        )
    order = np.argsort(np.concatenate([cells for cells, _, _ in parts]), kind="stable")
    score = sparse.csr_matrix(sparse.vstack([part for _, part, _ in parts], format="csr")[order])
    of_chance = [sparse.csr_matrix((excess, part.indices, part.indptr), shape=part.shape) for _, part, excess in parts]
    return score, sparse.csr_matrix(sparse.vstack(of_chance, format="csr")[order])


def _of_all_cells(values: sparse.csr_matrix, used: NDArray[np.int64], n_cells: int) -> sparse.csr_matrix:
    """Return rows for all cells of the table; those that were left out have none."""
    lengths = np.zeros(n_cells, dtype=np.int64)
    lengths[used] = np.diff(values.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_matrix((values.data, values.indices, indptr), shape=(n_cells, values.shape[1]))

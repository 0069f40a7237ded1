"""A gene taken from the cells around each cell: what becomes of the state of its surroundings, and of what they expect.

A cell itself stays as it is: its surroundings are the weighted mean of its neighbours' states without its own, and the
decoder of neighbourhoods is asked for numbers that do not depend on the cell's own counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts
from spaf_analysis.keys import NEIGHBOUR_GENES, SPATIAL
from spaf_analysis.perturbation.choice import genes_of_cells
from spaf_analysis.tables import labels_of, loaded, places_of, slide_names, table_of
from spaf_model import Model, PredictsExpression, check_key, neighbourhood_weights

if TYPE_CHECKING:
    from spaf_model import Cells

N_NEIGHBOURS = 10  # cells that are the surroundings of a cell
N_CONTROLS = 5  # genes of the same detection that each gene is ranked among
_ALL = "all"


def perturb_neighbours(
    adata: Cells,
    model: Model[Any, Any] | str | Path,
    genes: Sequence[str] | None,
    *,
    targets: Sequence[str] | None = None,
    cell_type: str | None = None,
    n_neighbors: int = N_NEIGHBOURS,
    n_controls: int = N_CONTROLS,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = NEIGHBOUR_GENES,
    **options: Any,
) -> None:
    """Take genes from the neighbours of cells, one at a time, and write what changes into `uns[key_added]`.

    Parameters
    ----------
    adata
        Cells with counts and `obsm["spatial"]`, or a SpatialData. Written to `uns[key_added]`: `table` (a row a gene
        and type: `gene`, `cell_type`, `n_cells` with a neighbour that has the gene, `state_change`: the mean distance
        that the mean state of their neighbours moves, over the usual distance of such states from their mean,
        `control_rank`: the gene's place among genes detected as often), `expression` (`gene`, `target`, `change` of
        what neighbourhoods expect, `control_rank`), `unit` of the change, `reason` why there is none, `parameters`.
    model
        A model, its directory, or the name of one that comes with spaf-model. One that predicts what the surroundings
        of a cell expect (a scGPT-spatial with a decoder of neighbourhoods) gives `expression` too.
    genes
        To take away.
    targets
        Genes whose expected expression is asked for; None: all of the table that the model knows, at most 200, by
        detection.
    cell_type
        Column of `obs`: also a row for each type of the cell in the middle.
    n_neighbors
        Nearest cells that are the surroundings, weighted by distance.
    n_controls, seed
        Genes of the same detection that are taken away too, for each, and how they are drawn.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.
    **options
        Of `Model.embed`: context of the cells, batch size.

    Raises
    ------
    InputError
        If no gene is named, one is not known, cells have no places, or there are no counts.

    Notes
    -----
    All cells are read once, or twice with expected expression, for each gene and each of its controls.
    """
    check_key(key_added)
    if not genes:
        raise InputError("name the genes to take from the neighbours of cells (genes; --gene on the command line).")
    if n_neighbors < 1 or n_controls < 1:
        raise InputError("n_neighbors and n_controls must be at least 1.")
    table = written = table_of(adata, table_key)
    asks = loaded(model)
    layer = options.pop("layer", None)
    counts = checked_counts(table, layer, "the table")
    genes_of_cells(table, counts, asks, genes)  # which refuses those that are not known
    has_gene = genes_of_cells(table, counts, asks, None)
    slides = np.unique(slide_names(table), return_inverse=True)[1].ravel().astype(np.int64)
    weights = neighbourhood_weights(places_of(table), slides, n_neighbours=n_neighbors)
    code, names = (np.zeros(table.n_obs, dtype=np.int64), [_ALL])
    if cell_type is not None:
        code, names = labels_of(table, cell_type, "cell_type", least=1)
    columns = table.var_names.get_indexer(list(genes)).astype(np.int64)
    controls = _controls(has_gene.mean(axis=0), columns, n_controls, seed)
    table = ad.AnnData(counts, obs=table.obs, var=table.var, obsm={SPATIAL: table.obsm[SPATIAL]})
    expected, reason, targets = _expecting(table, asks, targets, has_gene, options)
    whole = _Whole(table, asks, weights, expected, options)
    found = {column: whole.without(column) for column in np.unique(np.concatenate([columns, controls.ravel()]))}
    rows, changes = [], []
    for column, of_gene in zip(columns, controls, strict=True):
        around = (weights @ has_gene[:, column].astype(np.float32)) > 0
        for number, name in [(-1, _ALL)] + ([] if cell_type is None else list(enumerate(names))):
            cells = around & ((code == number) if number >= 0 else True)
            moved = found[column].moved
            rows.append(
                {
                    "gene": str(table.var_names[column]), "cell_type": name, "n_cells": int(cells.sum()),
                    "state_change": float(np.nanmean(moved[cells])) if cells.any() else float("nan"),
                    "control_rank": _rank(moved, cells, [found[one].moved for one in of_gene]),
                }
            )  # fmt: skip
        if expected is not None and around.any():
            own = _mean(found[column].expected, around)
            others = np.abs([_mean(found[one].expected, around) for one in of_gene])
            rank = (1 + (others >= np.abs(own)).sum(axis=0)) / (1 + len(others))
            changes.append(
                pd.DataFrame(
                    {"gene": str(table.var_names[column]), "target": targets, "change": own, "control_rank": rank}
                )
            )
    written.uns[key_added] = {
        "table": pd.DataFrame(rows),
        "expression": pd.concat(changes, ignore_index=True) if changes else pd.DataFrame({"gene": [], "target": []}),
        "unit": "number of the decoder (bins, or logarithm)" if expected is not None else "",
        "reason": reason,
        "parameters": {
            "genes": np.array(list(genes), dtype=object), "cell_type": cell_type or "", "n_neighbors": n_neighbors,
            "n_controls": n_controls, "seed": seed, "model": asks.source,
        },
    }  # fmt: skip


class _Change:
    """What taking a gene from all cells changes around each of them."""

    def __init__(self, moved: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        self.moved = moved  # (n_cells,), of the mean state of the neighbours
        self.expected = expected  # (n_cells, n_targets)


class _Whole:
    """The cells as they are, beside which they are read without a gene."""

    def __init__(
        self,
        table: ad.AnnData,
        model: Model[Any, Any],
        weights: sparse.csr_array,
        targets: list[str] | None,
        options: dict[str, Any],
    ) -> None:
        self._table, self._model, self._weights, self._targets, self._options = table, model, weights, targets, options
        self._counts = sparse.csc_matrix(table.X)
        self._around = self._read(table)
        self._expected = self._expect(table)
        usual = self._around - np.nanmean(self._around, axis=0)
        self._size = float(np.sqrt(np.nanmean((usual**2).sum(axis=1))))

    def without(self, column: int) -> _Change:
        """Read all cells without a gene."""
        counts = self._counts.copy()
        counts.data[counts.indptr[column] : counts.indptr[column + 1]] = 0
        changed = ad.AnnData(sparse.csr_matrix(counts), obs=self._table.obs, var=self._table.var)
        changed.obsm[SPATIAL] = self._table.obsm[SPATIAL]
        moved = np.linalg.norm(self._read(changed) - self._around, axis=1) / max(self._size, 1e-12)
        return _Change(moved, self._expect(changed) - self._expected)

    def _read(self, table: ad.AnnData) -> NDArray[np.float64]:
        """Return the mean state of the neighbours of each cell; one without genes counts as the mean of all."""
        read = ad.AnnData(table.X, obs=table.obs, var=table.var, obsm={SPATIAL: table.obsm[SPATIAL]})
        self._model.embed(read, key_added="states", **self._options)
        states = np.asarray(read.obsm["states"], dtype=np.float64)
        states = np.where(np.isfinite(states), states, np.nanmean(states, axis=0))
        around = np.asarray(self._weights @ states)
        around[np.diff(self._weights.indptr) == 0] = np.nan
        return around

    def _expect(self, table: ad.AnnData) -> NDArray[np.float64]:
        if self._targets is None:
            return np.zeros((table.n_obs, 0))
        assert isinstance(self._model, PredictsExpression)
        found: Any = self._model.expression(table, self._targets, niche=True, raw=True, **self._options)
        return np.asarray(found.niche, dtype=np.float64)


def _expecting(
    table: ad.AnnData,
    model: Model[Any, Any],
    targets: Sequence[str] | None,
    has_gene: NDArray[np.bool_],
    options: dict[str, Any],
) -> tuple[list[str] | None, str, list[str]]:
    """Return the genes to ask for, or None and why a model cannot be asked."""
    if targets is None:
        rate = has_gene.mean(axis=0)
        most = np.sort(np.argsort(-rate, kind="stable")[:200])
        targets = [str(name) for name in table.var_names[most[rate[most] > 0]]]
    if not isinstance(model, PredictsExpression):
        return None, f"a model of the family {model.family!r} does not predict expression", []
    few = ad.AnnData(table.X[:2], obs=table.obs.iloc[:2], var=table.var, obsm={SPATIAL: table.obsm[SPATIAL][:2]})
    try:
        model.expression(few, list(targets)[:1], niche=True, raw=True, **options)
    except ValueError as error:
        if "neighbourhood_decoder" not in str(error):
            raise
        return None, "the model has no decoder of neighbourhoods", []
    return list(targets), "", list(targets)


def _controls(rate: NDArray[np.floating], columns: NDArray[np.int64], n_controls: int, seed: int) -> NDArray[np.int64]:
    """Return for each gene those detected most nearly as often, some of twice as many by seed, (n, n_controls)."""
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.flatnonzero(rate > 0), columns)
    if len(others) < n_controls:
        raise InputError(
            f"{len(others)} other genes are detected, and {n_controls} are needed as controls (n_controls)."
        )
    found = []
    for column in columns:
        nearest = others[np.argsort(np.abs(rate[others] - rate[column]), kind="stable")[: 2 * n_controls]]
        found.append(rng.choice(nearest, n_controls, replace=False))
    return np.array(found, dtype=np.int64)


def _mean(changes: NDArray[np.float64], cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.nanmean(changes[cells], axis=0)
    return mean


def _rank(moved: NDArray[np.float64], cells: NDArray[np.bool_], others: list[NDArray[np.float64]]) -> float:
    """Return where a gene stands among its controls by what it moves in some cells."""
    if not cells.any():
        return float("nan")
    own = np.nanmean(moved[cells])
    return float((1 + sum(np.nanmean(other[cells]) >= own for other in others)) / (1 + len(others)))

"""Genes that the cells of an AnnData were not measured for, by a reference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

import spaf_data
from spaf_analysis.errors import InputError
from spaf_analysis.genes import SharedGenes, checked_counts, shared_genes
from spaf_analysis.imputation.asking import AskedGenes
from spaf_analysis.imputation.compute import LEAST_SHARED, MAX_SHARED, MODEL, Imputation, fit_imputation
from spaf_analysis.keys import IMPUTATION, SPATIAL
from spaf_analysis.tables import loaded, nearest_means, places_of, slide_names, table_of
from spaf_model import check_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spaf_model import Cells, Model

logger = logging.getLogger(__name__)

COUNTS, NEIGHBOURHOOD = "counts", "neighbourhood"  # layers
N_AROUND = 10  # nearest cells that are a neighbourhood
_LEAST_CELLS = 5  # of the reference that must have a gene


@dataclass(frozen=True)
class ImputedTable:
    """Imputed genes of a table, of which blocks are computed when they are asked for.

    Attributes
    ----------
    table
        The cells.
    found
        What was fitted.
    nearest
        (n_cells, n_cells), weights of the cells around each; None where neighbourhoods were not asked for.
    counts
        Whether counts are asked for.
    record
        What was done, in the form that an h5ad holds.
    """

    table: ad.AnnData
    found: Imputation
    nearest: sparse.csr_matrix | None
    counts: bool
    record: dict[str, Any]

    def blocks(self) -> Iterator[tuple[slice, dict[str, NDArray[np.float32]]]]:
        """Yield columns and their values, "X" and each layer, until all genes were there."""
        for genes, values in self.found.blocks():
            block = {"X": values}
            if self.counts:
                block[COUNTS] = _counts(values, self.found.shares[genes] * self.found.log_depth)
            if self.nearest is not None:
                around = np.asarray(self.nearest @ values, dtype=np.float32)
                around[np.diff(self.nearest.indptr) == 0] = np.nan
                block[NEIGHBOURHOOD] = around
            yield genes, block

    def shell(self) -> ad.AnnData:
        """Return the result without its values."""
        var = self.found.genes.set_index("gene")
        var.index = pd.Index(var.index.astype(str), name=None)
        shell = ad.AnnData(obs=self.table.obs.copy(), var=var)
        if SPATIAL in self.table.obsm:
            shell.obsm[SPATIAL] = np.array(self.table.obsm[SPATIAL])
        shell.uns[IMPUTATION] = self.record
        return shell


def impute(
    spatial: Cells,
    reference: Cells,
    *,
    genes: Sequence[str] | None = None,
    method: str = "auto",
    model: Model[Any, Any] | str | Path | None = None,
    layer: str | None = None,
    reference_layer: str | None = None,
    measured: bool = False,
    without_depth: bool = False,
    neighbourhood: bool = False,
    counts: bool = False,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = IMPUTATION,
) -> ad.AnnData:
    """Predict genes that were not measured, by a reference that did, and say which to believe.

    Writes ``uns[key_added]`` of the spatial table: `methods` (a row a method: `pearson` over held-out genes, `low`,
    `high`), `method`, `held_out` (the measured genes that methods were judged on: `accuracy`, `expected`),
    `rank_correlation` of the two, and what was done.

    Parameters
    ----------
    spatial
        Cells or spots with counts, or a SpatialData. Those without a count of a shared gene get what the mean of the
        reference lets expect.
    reference
        Cells with counts, or a SpatialData with one table. Genes are matched by Ensembl id or symbol.
    genes
        Names of those to predict; None: all of the reference that the spatial table lacks and that 5 cells have.
    method
        See `fit_imputation`.
    model
        A model that predicts expression, its directory or name: it becomes one of the ways, brought gene by gene to the
        mean and deviation of the reference. Genes that it does not know are left to the other ways; `method="model"`
        leaves them out, and refuses them where they are named.
    layer, reference_layer
        Layers that hold the counts; None: X.
    measured
        Also predict the measured genes (of `genes`, where they are named), each without having read it. Those that
        cannot be are in the record: `not_predicted`, `n_not_predicted`.
    without_depth
        Remove what of genes follows from the depth of a cell, from both tables, the result and its accuracies.
    neighbourhood
        Also average each prediction over the 10 nearest cells of the slide: a layer apart. Needs ``obsm["spatial"]``.
    counts
        Also give counts, as a cell of the reference of median depth would have them: a layer apart. The exponential of
        `X` alone would be too low, as the mean of logarithms is below the logarithm of the mean; each gene is therefore
        multiplied by one factor, so that its mean over the cells is the median depth of the reference times the mean
        share of the gene in its cells.
    seed
        Of everything random.
    table_key
        Table of a SpatialData of cells; may be None where it has only one.
    key_added
        Key of `uns` to write.

    Returns
    -------
    AnnData
        Cells x genes: `X` is expected log1p of counts per 10,000 in the scale of the reference (a blend may fall below
        0), `layers["counts"]`, `layers["neighbourhood"]` (in the scale of `X`), and in `var` what is known of each
        gene: `measured`, `accuracy`, `expected`, `expected_low`, `expected_high` (see `Imputation`).

    Raises
    ------
    InputError
        If a table holds no counts, the two share too few genes, a gene is unknown, or an option cannot be used. Nothing
        is written then.

    Examples
    --------
    ::

        import spaf_analysis as spaf

        imputed = spaf.tl.impute(xenium, cells)
        imputed.var["expected"].sort_values()
    """
    check_key(key_added)
    made = imputed_table(
        spatial, reference, genes=genes, method=method, model=model, layer=layer, reference_layer=reference_layer,
        measured=measured, without_depth=without_depth, neighbourhood=neighbourhood, counts=counts, seed=seed,
        table_key=table_key,
    )  # fmt: skip
    result = made.shell()
    values: dict[str, NDArray[np.float32]] = {}
    for columns, block in made.blocks():
        for name, part in block.items():
            values.setdefault(name, np.empty(result.shape, np.float32))[:, columns] = part
    result.X = values.pop("X")
    for name, layer_values in values.items():
        result.layers[name] = layer_values
    made.table.uns[key_added] = made.record
    return result


def imputed_table(
    spatial: Cells,
    reference: Cells,
    *,
    genes: Sequence[str] | None = None,
    method: str = "auto",
    model: Model[Any, Any] | str | Path | None = None,
    layer: str | None = None,
    reference_layer: str | None = None,
    measured: bool = False,
    without_depth: bool = False,
    neighbourhood: bool = False,
    counts: bool = False,
    seed: int = 0,
    table_key: str | None = None,
) -> ImputedTable:
    """Fit what `impute` fits, and compute nothing yet: for tables that do not fit into memory.

    Parameters, errors and what is predicted are those of `impute`.
    """
    table, cells = table_of(spatial, table_key), table_of(reference)
    of_query = checked_counts(table, layer, "the spatial table", option="layer (--layer)")
    of_reference = checked_counts(cells, reference_layer, "the reference", option="reference_layer (--reference-layer)")
    nearest = nearest_means(places_of(table), slide_names(table), N_AROUND) if neighbourhood else None
    shared = shared_genes(table, cells, ("the spatial table", "the reference"))
    if len(shared.names) < LEAST_SHARED:
        raise InputError(
            f"the spatial table and the reference share {len(shared.names)} genes and at least {LEAST_SHARED} are "
            f"needed to compare cells by; the one has genes such as {_some(table)}, the other such as {_some(cells)}: "
            "are both of one species?"
        )
    names = spaf_data.genes_of_table(cells.var, "the reference").names
    wanted = _wanted(of_reference, names, shared.columns[1], shared.names, genes, measured=measured)
    all_names = [*shared.names, *(names[column] for column in wanted)]
    ask, unknown = None, []
    if model is not None:
        ask = AskedGenes(loaded(model), table, of_query, shared.columns[0], all_names)
        unknown = [name for name, known in zip(all_names, ask.knows, strict=True) if not known]
        named = [name for name in genes or () if name in unknown]
        if method == MODEL and named:
            raise InputError(f"the model does not know gene {named[0]!r}: leave it out, or choose another method.")
    elif method == MODEL:
        raise InputError("the method 'model' needs a model that predicts counts of genes: name one (--model).")
    read = shared.counts(of_query, 0)
    depth = np.asarray(of_reference.sum(axis=1), dtype=np.float64).ravel()
    again = _measured_again(names, shared, genes) if measured else np.zeros(0, np.int64)
    found = fit_imputation(
        read, shared.counts(of_reference, 1), of_reference[:, wanted], all_names,
        depth=depth, method=method, measured=again, without_depth=without_depth, ask_model=ask, seed=seed,
    )  # fmt: skip
    asked_for = [*(shared.names[at] for at in again), *all_names[len(shared.names) :]]
    given = set(found.genes["gene"])
    not_predicted = [name for name in asked_for if name not in given]
    if not_predicted:
        more = f" and {len(not_predicted) - 5:,} more" if len(not_predicted) > 5 else ""
        logger.warning(
            "genes that cannot be predicted, as they do not vary in both tables, are not of the %d that vary most or "
            "are unknown to the model: %d (%s%s).",
            MAX_SHARED, len(not_predicted), ", ".join(not_predicted[:5]), more,
        )  # fmt: skip
    record = {
        "method": found.method,
        "methods": found.methods,
        "held_out": found.held_out,
        "rank_correlation": found.rank_correlation,
        "X": "expected log1p of counts per 10,000, in the scale of the reference",
        "n_shared_genes": len(shared.names),
        "n_cells_without_counts": int((np.diff(read.indptr) == 0).sum()),
        "n_unknown_to_model": len(set(asked_for) & set(unknown)),
        "n_not_predicted": len(not_predicted),
        "not_predicted": not_predicted,
        "n_imputed": int((~found.genes["measured"]).sum()),
        "log_depth": found.log_depth,
        "without_depth": without_depth,
        "seed": seed,
    }
    return ImputedTable(table, found, nearest, counts, record)


def stored_imputation(adata: Cells, *, key: str = IMPUTATION, table_key: str | None = None) -> dict[str, Any]:
    """Return what `impute` wrote down.

    Raises
    ------
    InputError
        If it is not there.
    """
    table = table_of(adata, table_key)
    if key not in table.uns or "held_out" not in table.uns[key]:
        raise InputError(f"uns has no imputation {key!r}: spaf_analysis.tl.impute writes it.")
    stored = dict(table.uns[key])
    return stored | {name: pd.DataFrame(stored[name]) for name in ("methods", "held_out")}


def _measured_again(names: Sequence[str], shared: SharedGenes, genes: Sequence[str] | None) -> NDArray[np.int64]:
    """Return the positions of the shared genes that are to be predicted: those that are named, or all."""
    if genes is None:
        return np.arange(len(shared.names))
    place = {name: at for at, name in reversed(list(enumerate(names)))}
    found = shared.columns[1][[place[name] for name in genes]]
    return np.unique(found[found >= 0])


def _wanted(
    reference: sparse.csr_matrix,
    names: Sequence[str],
    column: NDArray[np.int64],
    shared: Sequence[str],
    genes: Sequence[str] | None,
    *,
    measured: bool,
) -> NDArray[np.int64]:
    """Return the columns of the reference that are to be predicted and were not measured."""
    if genes is not None:
        place = {name: at for at, name in reversed(list(enumerate(names)))}
        missing = [name for name in genes if name not in place]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise InputError(f"the reference has no gene {', '.join(missing[:5])}{more}.")
        known = [name for name in genes if column[place[name]] >= 0]
        if known and not measured:
            raise InputError(
                f"gene {known[0]!r} was measured in the spatial table; leave it out, or predict measured genes as well "
                "(measured=True, --measured)."
            )
        return np.array([place[name] for name in dict.fromkeys(genes) if column[place[name]] < 0], dtype=np.int64)
    n_cells = np.bincount(reference.indices, minlength=reference.shape[1])
    wanted = np.flatnonzero((column < 0) & (n_cells >= _LEAST_CELLS))
    # Of columns with one name the one that most cells have: names of the result must tell genes apart.
    taken: dict[str, int] = {}
    is_shared = set(shared)
    for at in wanted.tolist():
        other = taken.get(names[at])
        if names[at] not in is_shared and (other is None or n_cells[at] > n_cells[other]):
            taken[names[at]] = at
    return np.array(sorted(taken.values()), dtype=np.int64)


def _counts(logs: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return counts in proportion to the exponentials of logs, of which each gene has a mean over the cells."""
    counts = np.expm1(np.maximum(logs, 0.0))
    now = counts.mean(axis=0, dtype=np.float64)
    # Where nothing is expected of any cell, nothing tells cells apart: each gets the mean.
    counts[:, now <= 0.0] = 1.0
    counts *= (mean / np.where(now > 0.0, now, 1.0)).astype(np.float32)
    return counts


def _some(table: ad.AnnData) -> str:
    return ", ".join(table.var_names[:3].astype(str))

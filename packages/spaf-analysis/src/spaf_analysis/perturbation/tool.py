"""What genes of two cells do together to the score that they are neighbours, of an AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.defaults import MAX_CELL_PAIRS, MIN_CELL_PAIRS, N_NEAR_FAR
from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts
from spaf_analysis.keys import PERTURBATION
from spaf_analysis.perturbation.choice import PairChoice, genes_of_cells
from spaf_analysis.perturbation.compute import (
    GenePairSet,
    Perturbed,
    beyond_amounts,
    collect,
    control_rank,
    expression_controls,
    is_too_much,
    leading,
    seen_gene_pairs,
)
from spaf_analysis.perturbation.permutation import NearFarTest, compare
from spaf_analysis.tables import loaded, table_of
from spaf_model import GeneChange, Model, PerturbsPairs, asked, check_key

if TYPE_CHECKING:
    import anndata as ad

    from spaf_analysis.perturbation.pairs import CellPairs
    from spaf_model import Cells

SCREEN = 0.125  # of the gene pairs, those with the largest products of single changes


def perturb(
    adata: Cells,
    model: Model[Any, Any] | PerturbsPairs | str | Path,
    *,
    cell_type: str | None = None,
    left: str | None = None,
    right: str | None = None,
    pairs: pd.DataFrame | None = None,
    genes: Sequence[str] | None = None,
    change: GeneChange = "delete",
    fold: float = 2.0,
    near: float | None = None,
    far: float | None = None,
    tile: float | None = None,
    max_pairs: int = MAX_CELL_PAIRS,
    min_pairs: int = MIN_CELL_PAIRS,
    screen: float = SCREEN,
    fdr: float = 0.05,
    n_permutations: int = N_NEAR_FAR,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = PERTURBATION,
    **options: Any,
) -> None:
    """Interactions of gene pairs across near pairs of cells, against far ones, into `uns[key_added]`.

    The score of two cells is the logit that they are neighbours. What a gene of the left and one of the right cell do
    together is the change of the score by both less the changes by each: their interaction. Near pairs of two cell
    types are matched with far ones of the same types, tile and, as far as can be, genes; a gene pair is judged by those
    that have both genes, one value a pair of cells, less what follows from the amounts of the two genes; and near and
    far are permuted within tiles (`spaf_analysis.perturbation.permutation`). A model that compares states of cells
    gives all interactions exactly; of one that reads both cells as one sequence those with the largest products of
    single changes are asked for.

    Parameters
    ----------
    adata
        Cells with counts and `obsm["spatial"]` in um, or a SpatialData. Written to `uns[key_added]`: `table` (a row a
        gene pair: `gene_left`, `gene_right`, `near`, `far`: mean interactions, `difference` beyond the amounts, `z`,
        `p`, `fdr`, `called`, `is_fitted`, `n_near`, `n_far`, `control_rank`: its place among up to 20 gene pairs of
        the same expression), `genes` (single genes: `gene`, `side` and the same columns), `pairs` (cells), numbers,
        `parameters`.
    model
        A model, its directory, or the name of one that comes with spaf-model.
    cell_type, left, right, pairs, near, far, tile, max_pairs, min_pairs
        See `spaf_analysis.perturbation.choice.PairChoice`.
    genes
        Those to change; None: all.
    change, fold
        ``"delete"``, ``"mask"``, or ``"fold"`` and by what the count is multiplied.
    screen
        Share of the gene pairs that is asked of a model that reads two cells as one sequence.
    fdr
        False discovery rate of what is called.
    n_permutations, seed
        See `spaf_analysis.perturbation.permutation.compare`.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.
    **options
        Of `SpatialFormer.perturb_pairs`: context of the cells, layer, batch size.

    Raises
    ------
    InputError
        If there are too few pairs of the types, a gene is not known, too many gene pairs would be held, there are no
        counts, or the model cannot be asked.
    """
    check_key(key_added)
    choice = PairChoice(
        cell_type=cell_type, left=left, right=right, pairs=pairs, near=near, far=far, tile=tile, max_pairs=max_pairs,
        min_pairs=min_pairs, seed=seed,
    )  # fmt: skip
    if not 0 < screen <= 1:
        raise InputError(f"screen must be above 0 and at most 1, not {screen:g}.")
    if not 0 < fdr < 1:
        raise InputError(f"fdr must be above 0 and below 1, not {fdr:g}.")
    if n_permutations < 100:
        raise InputError(f"n_permutations must be at least 100, not {n_permutations}.")
    table = table_of(adata, table_key)
    asks = model if isinstance(model, PerturbsPairs) else asked(loaded(model), PerturbsPairs)
    counts = checked_counts(table, options.get("layer"), "the table")
    has_gene = genes_of_cells(table, counts, asks, genes)
    cells = choice.of(table, has_gene)
    of_left, of_right = has_gene[cells.left], has_gene[cells.right]
    gene_pairs = seen_gene_pairs(
        of_left, of_right, cells.near, min_pairs=choice.min_pairs, has_order=not choice.is_one_type
    )
    if not len(gene_pairs):
        raise InputError(
            f"no pair of genes is in {choice.min_pairs} near and {choice.min_pairs} far pairs of cells; allow fewer "
            "(min_pairs), or take more pairs of cells (max_pairs)."
        )
    n_seen = len(gene_pairs)
    asks_all = {"change": change, "fold": fold, **options}
    exact = asks.compares_states
    if not exact:
        singles = asks.perturb_pairs(
            table, cells.left, cells.right, wanted=np.zeros((table.n_vars,) * 2, dtype=bool), **asks_all
        )
        none = gene_pairs.take(np.zeros(0, dtype=np.int64))
        found = collect(singles, len(cells), table.n_vars, none)
        gene_pairs = gene_pairs.take(leading(found, gene_pairs, screen))
    if is_too_much(len(cells), len(gene_pairs)):
        raise InputError(
            f"{len(gene_pairs):,} gene pairs of {len(cells)} pairs of cells are more than is held at once; name fewer "
            "genes, or ask for more pairs of cells behind each (min_pairs)."
        )
    wanted = None if exact else gene_pairs.wanted(table.n_vars)
    stream = asks.perturb_pairs(table, cells.left, cells.right, wanted=wanted, **asks_all)
    found = collect(stream, len(cells), table.n_vars, gene_pairs)
    amounts = [np.log1p(counts[side].toarray()).astype(np.float32) for side in (cells.left, cells.right)]
    beyond = beyond_amounts(found.interaction, gene_pairs, *amounts)
    tested = _compared(beyond, cells, choice, n_permutations, seed)
    controls = expression_controls(gene_pairs, of_left, of_right, tested.is_tested, seed=seed)
    called = np.nan_to_num(tested.fdr, nan=1.0) <= fdr
    of_called = controls[called]
    table.uns[key_added] = {
        "table": _table(found.interaction, cells, gene_pairs, tested, controls, table.var_names, fdr),
        "genes": _genes(found, cells, choice, table.var_names, n_permutations, seed, fdr),
        "pairs": _pairs(found, cells, table),
        "names": np.array(choice.names, dtype=object),
        "is_one_type": choice.is_one_type,
        "n_near": int(cells.near.sum()),
        "n_far": int((~cells.near).sum()),
        "n_tiles": len(np.unique(cells.stratum)),
        "similarity": float(np.mean(cells.similarity)),
        "auroc": _auroc(found.score, cells.near),
        "additive_r2": found.additive_r2,
        "n_values": found.n_values,
        "is_exact": exact,
        "n_seen": n_seen,
        "n_tested": int(tested.is_tested.sum()),
        "n_called": int(called.sum()),
        "n_controls": int((of_called >= 0).sum()),
        "n_controls_called": int(called[of_called[of_called >= 0]].sum()),
        "n_fitted": int(tested.is_fitted.sum()),
        "parameters": {
            "cell_type": cell_type or "", "left": left or "", "right": right or "", "change": change,
            "fold": fold if change == "fold" else float("nan"), "fdr": fdr, "screen": 1.0 if exact else screen,
            "n_permutations": n_permutations, "max_pairs": max_pairs, "min_pairs": min_pairs, "seed": seed,
            "layer": options.get("layer") or "",
            **dict(zip(("near", "far", "tile"), choice.distances(table), strict=True)),
            "model": str(getattr(asks, "source", "")),
        },
    }  # fmt: skip


def sentence(stored: dict[str, Any]) -> str:
    """Say what was found, with the controls, in one sentence."""
    left, right = stored["names"]
    of_controls = ""
    if stored["n_controls"]:
        share = stored["n_controls_called"] / stored["n_controls"]
        of_controls = f"; of gene pairs of the same expression as these, {share:.0%} are called too"
    return (
        f"Of {stored['n_tested']:,} gene pairs tested in {stored['n_near']} near and {stored['n_far']} far pairs of "
        f"{left} and {right}, {stored['n_called']:,} interact otherwise in near ones (false discovery rate "
        f"{stored['parameters']['fdr']:g}){of_controls}."
    )


def _compared(
    values: NDArray[np.float32], cells: CellPairs, choice: PairChoice, n_permutations: int, seed: int
) -> NearFarTest:
    return compare(
        values, cells.near, cells.stratum, n_permutations=n_permutations, min_pairs=choice.min_pairs, seed=seed
    )


def _columns(values: NDArray[np.float32], near: NDArray[np.bool_], tested: NearFarTest, fdr: float) -> dict[str, Any]:
    """Return what tables of gene pairs and of genes have in common."""
    means = {}
    for name, rows in (("near", near), ("far", ~near)):
        n = np.isfinite(values[rows]).sum(axis=0)
        total = np.nansum(values[rows], axis=0, dtype=np.float64)
        means[name] = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
    return means | {
        "difference": tested.difference, "z": tested.z, "p": tested.p, "fdr": tested.fdr,
        "called": np.nan_to_num(tested.fdr, nan=1.0) <= fdr, "is_fitted": tested.is_fitted,
        "n_near": tested.n_near, "n_far": tested.n_far,
    }  # fmt: skip


def _table(
    values: NDArray[np.float32],
    cells: CellPairs,
    gene_pairs: GenePairSet,
    tested: NearFarTest,
    controls: NDArray[np.int64],
    names: pd.Index,
    fdr: float,
) -> pd.DataFrame:
    genes = {"gene_left": names[gene_pairs.first].astype(str), "gene_right": names[gene_pairs.second].astype(str)}
    rank = control_rank(np.abs(tested.z), controls)
    rows = pd.DataFrame(genes | _columns(values, cells.near, tested, fdr) | {"control_rank": rank})
    return _most_certain_first(rows[tested.is_tested])


def _genes(
    found: Perturbed, cells: CellPairs, choice: PairChoice, names: pd.Index, n_permutations: int, seed: int, fdr: float
) -> pd.DataFrame:
    """Return the table of single genes of either cell, whose p-values are adjusted together."""
    sides = {"left": found.single_left, "right": found.single_right}
    if choice.is_one_type:
        both = np.stack([found.single_left, found.single_right])
        n = np.isfinite(both).sum(axis=0)
        sides = {"either": np.where(n > 0, np.nansum(both, axis=0) / np.maximum(n, 1), np.nan).astype(np.float32)}
    values = np.concatenate(list(sides.values()), axis=1)
    tested = _compared(values, cells, choice, n_permutations, seed)
    who = {"gene": np.tile(names.astype(str), len(sides)), "side": np.repeat(list(sides), len(names))}
    rows = pd.DataFrame(who | _columns(values, cells.near, tested, fdr))
    return _most_certain_first(rows[tested.is_tested])


def _pairs(found: Perturbed, cells: CellPairs, table: ad.AnnData) -> pd.DataFrame:
    names = table.obs_names.astype(str)
    return pd.DataFrame(
        {
            "left": names[cells.left], "right": names[cells.right], "near": cells.near, "tile": cells.stratum,
            "score": found.score, "similarity": cells.similarity,
        }
    )  # fmt: skip


def _auroc(score: NDArray[np.float64], near: NDArray[np.bool_]) -> float:
    """Return how well the score tells the near from the far pairs."""
    from sklearn.metrics import roc_auc_score

    known = np.isfinite(score)
    if len(np.unique(near[known])) < 2:
        return float("nan")
    return float(roc_auc_score(near[known], score[known]))


def _most_certain_first(rows: pd.DataFrame) -> pd.DataFrame:
    order = np.lexsort((-np.abs(rows["z"].to_numpy()), rows["p"].to_numpy()))
    return rows.iloc[order].reset_index(drop=True)

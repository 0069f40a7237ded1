"""Attention from gene to gene over pairs of cells of an AnnData, and what is left of it after its controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from spaf_analysis.attention.compute import (
    BETWEEN,
    DIRECTIONS,
    GeneWeights,
    against_shuffled,
    correlations,
    explained,
    residual,
    spearman,
)
from spaf_analysis.defaults import MIN_CELL_PAIRS
from spaf_analysis.errors import InputError
from spaf_analysis.genes import checked_counts
from spaf_analysis.keys import ATTENTION
from spaf_analysis.perturbation.choice import PairChoice, genes_of_cells
from spaf_analysis.tables import loaded, table_of
from spaf_model import Model, PerturbsPairs, ShowsAttention, asked, check_key

if TYPE_CHECKING:
    import anndata as ad
    from scipy import sparse

    from spaf_model import Cells

MAX_PAIRS = 100  # near pairs of cells whose attention is read
N_SHUFFLES = 19
N_AGREEMENT = 10  # pairs of cells whose attention is held against deletion
_DELETED = 200  # gene pairs deleted in each of these
By = Literal["mean", "layer", "head"]


def attention(
    adata: Cells,
    model: Model[Any, Any] | ShowsAttention | str | Path,
    *,
    cell_type: str | None = None,
    left: str | None = None,
    right: str | None = None,
    pairs: pd.DataFrame | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    by: By = "mean",
    near: float | None = None,
    far: float | None = None,
    tile: float | None = None,
    max_pairs: int = MAX_PAIRS,
    min_pairs: int = MIN_CELL_PAIRS,
    n_shuffles: int = N_SHUFFLES,
    n_agreement: int = N_AGREEMENT,
    fdr: float = 0.05,
    seed: int = 0,
    table_key: str | None = None,
    key_added: str = ATTENTION,
    **options: Any,
) -> None:
    """Attention from gene to gene, less what position gives and beside shuffled pairs of cells, into `uns[key_added]`.

    The direction says who asks: in ``left_to_right`` genes of the left cells (the query) look at genes of the right
    ones (the key). What position alone gives is the softmax of the ALiBi bias. Shuffled pairs are the same cells with
    other partners of their tile, so that what differs between parts of the tissue is no call; attention within a cell
    has no such control. Memory is that of gene x gene sums, whatever the number of pairs of cells.

    Parameters
    ----------
    adata
        Cells with counts and `obsm["spatial"]` in um, or a SpatialData. Written to `uns[key_added]`: `table` (a row a
        direction and pair of genes: `direction`, `query`, `key`, `attention` as it is, `position`: what ALiBi alone
        gives, `weight`: the difference, `detection`: product of detection rates, `correlation` of amounts, `shuffled`:
        mean weight of shuffled pairs, `residual` of a regression on all of these, `t`, `p`, `fdr`, `called` against
        shuffled pairs, `n_pairs`), `controls` (of each direction the share of variance that each control explains alone
        and together, and how many gene pairs are called), `agreement` with deletion by pair of cells, `by` (of each
        layer or head), `parameters`.
    model
        A model, its directory, or the name of one that comes with spaf-model, in which genes of two cells attend to
        each other.
    cell_type, left, right, pairs, near, far, tile, max_pairs, min_pairs
        Which near pairs, see `spaf_analysis.perturbation.choice.PairChoice`; `min_pairs` must have both genes.
    layers, heads
        Which are averaged, from 0; None: all.
    by
        Also each ``"layer"``, or each ``"head"`` of each layer, by itself: how much of it is position, and how it ranks
        gene pairs beside shuffled pairs of cells.
    n_shuffles
        Shuffled sets of pairs, each read as the pairs themselves are.
    n_agreement
        Pairs of cells in which up to 200 gene pairs are deleted, to compare; 0: none.
    fdr, seed
        Of what is called against shuffled pairs; of shuffles and choices.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.
    **options
        Of `SpatialFormer.attention`: context of the cells, layer, batch size.

    Raises
    ------
    InputError
        If the model has no attention, or none between cells; there are too few pairs, or no two in a tile; no gene pair
        is in enough; or there are no counts.
    """
    check_key(key_added)
    if by not in ("mean", "layer", "head"):
        raise InputError(f"by must be one of mean, layer, head, not {by!r}.")
    if n_shuffles < 3:
        raise InputError(f"n_shuffles must be at least 3, not {n_shuffles}.")
    if not 0 < fdr < 1:
        raise InputError(f"fdr must be above 0 and below 1, not {fdr:g}.")
    choice = PairChoice(
        cell_type=cell_type, left=left, right=right, pairs=pairs, near=near, far=far, tile=tile, max_pairs=max_pairs,
        min_pairs=min_pairs, seed=seed,
    )  # fmt: skip
    table = table_of(adata, table_key)
    asks = model if isinstance(model, ShowsAttention) else asked(loaded(model), ShowsAttention)
    counts = checked_counts(table, options.get("layer"), "the table")
    chosen = choice.of(table, genes_of_cells(table, counts, asks, None))
    cells = np.c_[chosen.left, chosen.right][chosen.near]
    tiles = chosen.stratum[chosen.near]
    if len(np.unique(tiles)) == len(tiles):
        raise InputError(
            f"no two pairs of cells lie in one tile of {choice.distances(table)[2]:g} um, so partners cannot be "
            "exchanged; give a larger tile."
        )
    others = list(_shuffled(cells, tiles, n_shuffles, seed))
    read = {"layers": layers, "heads": heads, **options}
    observed = asks.attention(table, cells, **read)
    plain = asks.attention(table, cells, **read, minus_alibi=False)
    shuffles = [asks.attention(table, other, **read) for other in others]
    amounts = {side: np.log1p(counts[cells[:, place]].toarray()) for place, side in enumerate(("left", "right"))}
    parts, controls = [], []
    for direction in DIRECTIONS:
        of = GeneWeights.of(observed, direction)
        part = _direction(of, GeneWeights.of(plain, direction), amounts, direction, choice.min_pairs)
        if direction in BETWEEN and len(part):
            codes = part["query"].to_numpy() * of.n_genes + part["key"].to_numpy()
            other = np.stack(
                [GeneWeights.of(one, direction).weight_of(codes, min_pairs=choice.min_pairs) for one in shuffles]
            )
            part["shuffled"], part["t"], part["p"] = against_shuffled(part["weight"].to_numpy(), other)
        parts.append(part)
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True) if any(map(len, parts)) else parts[0]
    if not len(rows):
        raise InputError(f"no pair of genes is in {choice.min_pairs} pairs of cells; allow fewer (min_pairs).")
    rows = rows.reindex(columns=[*_COLUMNS, "shuffled", "residual", "t", "p", "fdr"])
    tested = rows["p"].notna().to_numpy()
    if tested.any():
        rows.loc[tested, "fdr"] = false_discovery_control(rows.loc[tested, "p"].to_numpy())
    rows["called"] = (rows["fdr"] <= fdr).to_numpy()
    for direction in DIRECTIONS:
        own = (rows["direction"] == direction).to_numpy()
        if own.any():
            found, left_over = _controls(rows[own], direction, fdr)
            controls.append(found)
            rows.loc[own, "residual"] = left_over
    agreement, reason = _agreement(table, counts, asks, cells[:n_agreement], read, seed)
    each = _by(table, asks, cells, others[0], by, read, layers, heads, choice.min_pairs)
    for column in ("query", "key"):
        rows[column] = table.var_names.to_numpy().astype(str)[rows[column].to_numpy(dtype=np.int64)]
    order = np.lexsort((-rows["weight"].abs().to_numpy(), rows["p"].fillna(2.0).to_numpy()))
    table.uns[key_added] = {
        "table": rows.iloc[order].reset_index(drop=True),
        "controls": pd.DataFrame(controls),
        "agreement": agreement,
        "reason": reason,
        "by": each,
        "names": np.array(choice.names, dtype=object),
        "n_cell_pairs": int(observed.n_cell_pairs),
        "n_tested": int(tested.sum()),
        "n_called": int(rows["called"].sum()),
        "parameters": {
            "cell_type": cell_type or "", "left": left or "", "right": right or "", "by": by, "fdr": fdr,
            "layers": np.array([] if layers is None else layers, dtype=np.int64),
            "heads": np.array([] if heads is None else heads, dtype=np.int64),
            "n_shuffles": n_shuffles, "max_pairs": max_pairs, "min_pairs": min_pairs, "seed": seed,
            "layer": options.get("layer") or "",
            **dict(zip(("near", "far", "tile"), choice.distances(table), strict=True)),
            "model": str(getattr(asks, "source", "")),
        },
    }  # fmt: skip


def sentence(stored: dict[str, Any]) -> str:
    """Say what is left of attention between cells after its controls, in one sentence."""
    controls = pd.DataFrame(stored["controls"])
    between = controls[controls["direction"].isin(BETWEEN)]
    said = f"Of {stored['n_tested']:,} directed gene pairs between {stored['n_cell_pairs']} pairs of cells"
    said += f", {stored['n_called']:,} get another attention than in shuffled pairs"
    if len(between):
        left = 1 - between["together"].mean()
        said += f"; the controls together explain all but {left:.1%} of the variance of attention less position"
    rho = pd.DataFrame(stored["agreement"]).get("rho")
    if rho is not None and rho.notna().any():
        said += f"; its rank correlation with what deleting both genes does is {rho.median():.2f} in the median"
    return f"{said}."


_COLUMNS = ["direction", "query", "key", "attention", "position", "weight", "detection", "correlation", "n_pairs"]


def _direction(
    of: GeneWeights, plain: GeneWeights, amounts: dict[str, NDArray[np.float64]], direction: str, min_pairs: int
) -> pd.DataFrame:
    """Return weights of a direction with what needs no other reading beside them."""
    ends = {"within_left": ("left", "left"), "within_right": ("right", "right"), "right_to_left": ("right", "left")}
    query_cells, key_cells = (amounts[side] for side in ends.get(direction, ("left", "right")))
    kept = of.n_pairs >= min_pairs
    query, key, weight = of.query[kept], of.key[kept], of.weight[kept]
    whole = plain.weight_of(of.codes[kept])
    rates = [(cells > 0).mean(axis=0) for cells in (query_cells, key_cells)]
    return pd.DataFrame(
        {
            "direction": direction, "query": query, "key": key, "attention": whole, "position": whole - weight,
            "weight": weight, "detection": rates[0][query] * rates[1][key],
            "correlation": correlations(query_cells, key_cells, query, key), "n_pairs": of.n_pairs[kept],
        }
    )  # fmt: skip


def _controls(rows: pd.DataFrame, direction: str, fdr: float) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return how much of a direction each control explains, and what all of them leave."""
    weight = rows["weight"].to_numpy()
    names = ["detection", "correlation", *(["shuffled"] if direction in BETWEEN else [])]
    controls = {name: rows[name].to_numpy(dtype=np.float64) for name in names}
    found: dict[str, Any] = {
        "direction": direction,
        "n": len(rows),
        "position": explained(rows["attention"].to_numpy(), [rows["position"].to_numpy()]),
    }
    found |= {name: explained(weight, [values]) for name, values in controls.items()}
    found["together"] = explained(weight, list(controls.values()))
    found["n_called"] = int((rows["fdr"] <= fdr).sum())
    return found, residual(weight, list(controls.values()))


def _shuffled(
    cells: NDArray[np.int64], tiles: NDArray[np.int64], n_shuffles: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs with the right cells of each tile in another order: domains of the tissue stay what they are."""
    rng = np.random.default_rng(seed)
    for _ in range(n_shuffles):
        other = cells.copy()
        for tile in np.unique(tiles):
            own = np.flatnonzero(tiles == tile)
            other[own, 1] = cells[rng.permutation(own), 1]
        yield other


def _agreement(
    table: ad.AnnData,
    counts: sparse.csr_matrix,
    model: Any,
    cells: NDArray[np.int64],
    read: dict[str, Any],
    seed: int,
) -> tuple[pd.DataFrame, str]:
    """Return for each pair of cells how attention between them ranks gene pairs beside deleting both genes.

    And how position alone, and the product of the shares of cells in which the genes are detected, rank them.
    """
    columns = ["left", "right", "n", "rho", "rho_position", "rho_detection"]
    if not len(cells):
        return pd.DataFrame({name: [] for name in columns}), "it was not asked for"
    can_delete: Any = model
    if not isinstance(can_delete, PerturbsPairs):
        return pd.DataFrame({name: [] for name in columns}), "the model cannot be asked again without genes"
    rng = np.random.default_rng(seed)
    options = {name: value for name, value in read.items() if name not in ("layers", "heads")}
    rates = counts.getnnz(axis=0) / max(table.n_obs, 1)
    names, rows = table.obs_names.astype(str), []
    for one, other in cells:
        both = np.outer((counts[one].toarray() > 0).ravel(), (counts[other].toarray() > 0).ravel())
        places = np.argwhere(both)
        some = places[rng.permutation(len(places))[:_DELETED]]
        wanted = np.zeros_like(both)
        wanted[some[:, 0], some[:, 1]] = True
        pair = next(iter(can_delete.perturb_pairs(table, [one], [other], wanted=wanted, **options)))
        deleted = np.full(both.shape, np.nan)
        deleted[np.ix_(pair.genes_left, pair.genes_right)] = np.abs(pair.interaction)
        weights = [model.attention(table, [[one, other]], **read, minus_alibi=minus) for minus in (True, False)]
        there, back = (
            [GeneWeights.of(found, direction).weight_of(codes) for found in weights]
            for direction, codes in (
                ("left_to_right", some[:, 0] * len(both) + some[:, 1]),
                ("right_to_left", some[:, 1] * len(both) + some[:, 0]),
            )
        )
        weight, whole = there[0] + back[0], there[1] + back[1]
        moved = deleted[some[:, 0], some[:, 1]]
        beside = (whole - weight, rates[some[:, 0]] * rates[some[:, 1]])
        rho = [spearman(values, moved) for values in (weight, *beside)]
        rows.append((names[one], names[other], len(some), *rho))
    return pd.DataFrame(rows, columns=columns), ""


def _by(
    table: ad.AnnData,
    model: Any,
    cells: NDArray[np.int64],
    other: NDArray[np.int64],
    by: By,
    read: dict[str, Any],
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
    min_pairs: int,
) -> pd.DataFrame:
    """Return, of each layer or head, how much of the attention between cells is position, and what shuffling keeps."""
    columns = ["layer", "head", "position", "rho_shuffled"]
    if by == "mean":
        return pd.DataFrame({name: [] for name in columns})
    rest = {name: value for name, value in read.items() if name not in ("layers", "heads")}
    rows = []
    for layer in range(model.config.n_layers) if layers is None else layers:
        of_layer = heads if heads is not None else range(model.config.n_heads)
        for chosen in [list(of_layer)] if by == "layer" else [[head] for head in of_layer]:
            own = {"layers": [layer], "heads": chosen, **rest}
            found, whole, shuffled = (
                model.attention(table, pairs, **own, minus_alibi=minus)
                for pairs, minus in ((cells, True), (cells, False), (other, True))
            )
            of = GeneWeights.of(found, "left_to_right")
            kept = of.n_pairs >= min_pairs
            codes = of.codes[kept]
            plain = GeneWeights.of(whole, "left_to_right").weight_of(codes)
            again = GeneWeights.of(shuffled, "left_to_right").weight_of(codes, min_pairs=min_pairs)
            head = chosen[0] if by == "head" else -1
            position = explained(plain, [plain - of.weight[kept]])
            rows.append((layer, head, position, spearman(of.weight[kept], again)))
    return pd.DataFrame(rows, columns=columns)

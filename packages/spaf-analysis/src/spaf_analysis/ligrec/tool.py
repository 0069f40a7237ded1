"""Ligand-receptor pairs of an AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.defaults import BANDWIDTH, N_MATCHED, N_PERMUTATIONS, TILE
from spaf_analysis.donors import DonorTest, compare_conditions, compare_with_zero
from spaf_analysis.errors import InputError
from spaf_analysis.keys import LIGREC
from spaf_analysis.ligrec.compute import FDR, PairTests, adjusted, judge_pairs, matched_genes
from spaf_analysis.ligrec.inputs import Inputs, inputs_of
from spaf_analysis.ligrec.moments import spatial_moments
from spaf_analysis.ligrec.overlap import called_pairs, overlap_of_calls
from spaf_analysis.ligrec.resource import Coverage, cover, read_resource
from spaf_analysis.tables import table_of
from spaf_model import check_key

if TYPE_CHECKING:
    from spaf_model import Cells


def ligrec(
    adata: Cells,
    *,
    resource: str | Path | pd.DataFrame = "consensus",
    cell_type: str | None = None,
    donor: str | None = None,
    condition: str | None = None,
    contrast: tuple[str, str] | None = None,
    bandwidth: float = BANDWIDTH,
    tile: float = TILE,
    n_matched: int = N_MATCHED,
    min_cells: int = 10,
    beside: Mapping[str, str | pd.DataFrame] | None = None,
    beside_columns: tuple[str, str, str] | None = None,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    layer: str | None = None,
    table_key: str | None = None,
    key_added: str = LIGREC,
) -> None:
    """Find ligands whose receptor lies beside them, into `uns[key_added]`.

    The score of a pair is the sum over cells and the cells around them (Gaussian kernel, each slide by itself) of the
    receptor of one times the ligand of the other; of a complex the subunit that is least expressed counts. It stands
    beside two kinds of chance: what is left of either when the mean of its type and tile is taken off, whole cells
    being dealt anew among those of one type in one tile (all permutations, by their moments), so that two genes that go
    together, or exclude each other, within cells are not called for that; and pairs of genes as frequent as its own. A
    pair is called where both adjusted p are at most .05; where donors are given they are what is tested, and
    called is a pair whose p adjusted by max-T is at most .05.

    Parameters
    ----------
    adata
        Cells with counts and `obsm["spatial"]` in um, or a SpatialData. Written to `uns[key_added]`: `table` (`ligand`,
        `receptor`, `observed`, `expected`, `ratio`, `ratio_matched`, `excess`, their difference;
        `z`, `p`, `fdr`; `rank` among the matched pairs, `p_matched`, `fdr_matched`, `n_matched`; `called`;
        with donors also `difference` (mean excess of donors, or of the first condition less the second), `p_donors`,
        `p_donors_adjusted` (max-T), `fdr_donors`, `n_donors`); `coverage`, a sentence; `resource`; `too_rare`;
        `overlap` where `beside` is given; `parameters`.
    resource
        As for `spaf_analysis.ligrec.read_resource`.
    cell_type
        Column of `obs`; cells without a type are left out. None: within tiles only, so that types that lie together are
        called too.
    donor
        Column of `obs`. The excess of each donor is tested by flipping signs.
    condition, contrast
        Column of `obs`, and the two conditions to compare where it has more, by permuting donors.
    bandwidth
        Standard deviation of the kernel, in um.
    tile
        Side of the squares, in um, within which cells are dealt anew.
    n_matched
        Genes nearest in mean expression to each side, from all pairs of which the matched pairs are taken.
    min_cells
        Pairs of which either side is seen in fewer cells are not tested.
    beside
        Other results on pairs of genes, by name: tables, or keys of `uns`.
    beside_columns
        Their columns with both genes and with what was called; without the last, `fdr` at most .05 is. None: those of
        the results of this package.
    n_permutations, seed
        See `spaf_analysis.donors`.
    layer
        With counts; None: `X`.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.

    Raises
    ------
    InputError
        If the resource has not the columns, the panel measures none of its pairs, there is one donor, a column is
        missing, most cells have no other one of their type in their tile or within the bandwidth, two cells have
        one name, or counts or places are not finite.
    """
    check_key(key_added)
    for name, value in (("n_matched", n_matched), ("min_cells", min_cells)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}.")
    table = table_of(adata, table_key)
    read = read_resource(resource)
    inputs = inputs_of(
        table, cell_type=cell_type, donor=donor, condition=condition, contrast=contrast, bandwidth=bandwidth, tile=tile,
        layer=layer,
    )  # fmt: skip
    covered = cover(read, inputs.genes)
    others = {
        name: called_pairs(_other(table.uns, name, other), beside_columns, name)
        for name, other in (beside or {}).items()
    }
    pairs, tests = _tests(inputs, covered, n_matched, min_cells)
    rows = _rows(pairs, tests, inputs, n_permutations, seed)
    stored: dict[str, Any] = {
        "table": rows,
        "coverage": covered.sentence(read),
        "resource": {
            "name": read.name, "version": read.version, "sha256": read.sha256, "n_pairs": covered.n_pairs,
            "n_measured": len(covered.pairs), "n_partial": covered.n_partial,
        },
        "too_rare": len(covered.pairs) - len(pairs),
        "n_tested": len(pairs),
        "n_called": int(rows["called"].sum()),
        "types": np.array(inputs.types, dtype=object),
        "donors": np.array(inputs.donors, dtype=object),
        "conditions": np.array(inputs.conditions, dtype=object),
        "parameters": {
            "cell_type": cell_type or "", "donor": donor or "", "condition": condition or "", "bandwidth": bandwidth,
            "tile": tile, "n_matched": n_matched, "min_cells": min_cells, "n_permutations": n_permutations,
            "seed": seed, "layer": layer or "",
        },
    }  # fmt: skip
    if others:
        stored["overlap"] = overlap_of_calls(rows, others, read.pairs)
    table.uns[key_added] = stored


def _other(uns: Mapping[str, Any], name: str, other: str | pd.DataFrame) -> pd.DataFrame:
    if isinstance(other, pd.DataFrame):
        return other
    if other not in uns:
        raise InputError(f"uns has no {other!r} ({name}); it has: {', '.join(map(str, uns)) or 'nothing'}.")
    found = uns[other]
    return pd.DataFrame(found["table"] if isinstance(found, Mapping) and "table" in found else found)


def _tests(inputs: Inputs, covered: Coverage, n_matched: int, min_cells: int) -> tuple[pd.DataFrame, PairTests]:
    """Return the pairs that are frequent enough, and how each stands beside chance."""
    named = list(covered.subunits)
    of_names = inputs.values_of([covered.subunits[name] for name in named])
    frequent = dict(zip(named, (of_names.getnnz(axis=0) >= min_cells).tolist(), strict=True))
    pairs = covered.pairs[[frequent[a] and frequent[b] for a, b in covered.pairs.itertuples(index=False)]]
    if pairs.empty:
        raise InputError(
            f"of no pair both sides are seen in {min_cells} cells ({len(covered.pairs):,} pairs are measured); lower "
            "min_cells or take more cells."
        )
    pairs = pairs.reset_index(drop=True)
    sides = {covered.subunits[name] for name in (*pairs["ligand"], *pairs["receptor"])}
    complexes = sorted(side for side in sides if len(side) > 1)
    singles = sorted(side[0] for side in sides if len(side) == 1)
    level = np.asarray(inputs.values.mean(axis=0)).ravel()
    wanted = [(gene,) for gene in singles] + complexes
    # Genes that are seen too rarely to be tested are no match either.
    known = inputs.values.getnnz(axis=0) >= min_cells
    means = np.asarray(inputs.values_of(wanted).mean(axis=0)).ravel()
    pools, matches = matched_genes(np.where(known, level, 0.0), means, n_matched)
    genes = sorted(set(singles) | set(matches.tolist()))
    features: list[tuple[int, ...]] = [(gene,) for gene in genes] + complexes
    place = {feature: index for index, feature in enumerate(features)}
    of_pool = np.zeros((len(features), pools.shape[1]), dtype=np.int64)
    for feature, pool in zip(wanted, pools.tolist(), strict=True):
        of_pool[place[feature]] = [place[(gene,)] for gene in pool]
    moments = spatial_moments(
        inputs.values_of(features),
        inputs.coordinates,
        inputs.block,
        inputs.kind,
        inputs.unit,
        sigma=inputs.bandwidth,
        n_units=len(inputs.donors),
    )
    at = np.array(
        [[place[covered.subunits[name]] for name in row] for row in pairs.itertuples(index=False)], dtype=np.int64
    )
    both = {(a, b) for a, b in at.tolist()}
    tests = judge_pairs(
        moments, at, of_pool, subunits=[frozenset(feature) for feature in features],
        known=frozenset(both | {(b, a) for a, b in both}),
    )  # fmt: skip
    return pairs, tests


def _rows(pairs: pd.DataFrame, tests: PairTests, inputs: Inputs, n_permutations: int, seed: int) -> pd.DataFrame:
    rows = pairs.assign(
        observed=tests.observed, expected=tests.expected, ratio=tests.ratio, ratio_matched=tests.ratio_matched,
        excess=tests.ratio - tests.ratio_matched, z=tests.z, p=tests.p, fdr=tests.fdr, rank=tests.rank,
        p_matched=tests.p_matched, fdr_matched=tests.fdr_matched, n_matched=tests.n_matched,
        called=(tests.fdr <= FDR) & (tests.fdr_matched <= FDR),
    )  # fmt: skip
    if len(inputs.donors) > 1:
        test = _of_donors(tests.of_units, inputs, n_permutations, seed)
        fdr = adjusted(test.p)
        towards = (test.difference > 0) | (inputs.is_first is not None)
        rows = rows.assign(
            difference=test.difference, p_donors=test.p, p_donors_adjusted=test.p_adjusted, fdr_donors=fdr,
            n_donors=test.n_donors, called=(test.p_adjusted <= FDR) & towards,
        )  # fmt: skip
    return rows.sort_values(
        ["p_matched", "excess", "ligand", "receptor"], ascending=[True, False, True, True], ignore_index=True
    )


def _of_donors(values: NDArray[np.float64], inputs: Inputs, n_permutations: int, seed: int) -> DonorTest:
    if inputs.is_first is not None:
        return compare_conditions(values, inputs.is_first, n_permutations=n_permutations, seed=seed)
    return compare_with_zero(values, n_permutations=n_permutations, seed=seed)

"""Which types send and which receive: the excess of a ligand-receptor pair, divided among pairs of types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaf_analysis.errors import InputError
from spaf_analysis.keys import LIGREC, LIGREC_TYPES
from spaf_analysis.ligrec.compute import FDR, adjusted, standardised
from spaf_analysis.ligrec.moments import Moments, StratumMeans, around, sums_inside, upper_tail
from spaf_analysis.ligrec.scores import stored_pairs
from spaf_analysis.tables import table_of
from spaf_model import check_key

if TYPE_CHECKING:
    from scipy import sparse

    from spaf_analysis.ligrec.inputs import Inputs
    from spaf_model import Cells


def ligrec_types(
    adata: Cells,
    *,
    only_called: bool = False,
    key: str = LIGREC,
    table_key: str | None = None,
    key_added: str = LIGREC_TYPES,
) -> None:
    """Say which types send and which receive of each pair that `tl.ligrec` tested, into `uns[key_added]`.

    Parameters
    ----------
    adata
        Cells with `uns[key]`, or a SpatialData. Written to `uns[key_added]`: `table`, a row a pair and two types that
        lie beside each other: `ligand`, `receptor`; `sender`, type of the cells with the ligand, and `receiver`;
        `observed`, and `expected` where whole cells are dealt anew within type and tile; `ratio`; `share` of all that
        is observed of the pair beyond expectation; `z`, `p` and `fdr` (over all rows), of which the way (ligands or
        receptors dealt anew) that says less; `called` at 5 %. Over types `observed` and `expected` add up to those of
        the pair in `uns[key]`.
    only_called
        Only the pairs that were called.
    key
        What `tl.ligrec` wrote, with types.
    table_key
        Table of a SpatialData; may be None where it has only one.
    key_added
        Key of `uns` to write.

    Raises
    ------
    InputError
        If it is not there, or was made without types, or no pair was called.
    """
    check_key(key_added)
    table = table_of(adata, table_key)
    found = stored_pairs(table, key, only_called=only_called)
    if not found.parameters["cell_type"]:
        raise InputError(
            f"uns[{key!r}] was made without types, so none send or receive: name their column (cell_type)."
        )
    inputs = found.inputs
    rows = _rows(found.pairs, divided(inputs, found.ligands, found.receptors), np.array(inputs.types, dtype=object))
    table.uns[key_added] = {
        "table": rows, "n_called": int(rows["called"].sum()), "parameters": {"key": key, "only_called": only_called},
    }  # fmt: skip


@dataclass(frozen=True)
class Divided:
    """Pairs of features beside each other, by the types of the cells: senders x receivers x pairs.

    Attributes
    ----------
    observed, excess
        As of `spaf_analysis.ligrec.Moments`, over senders of one and receivers of another type.
    z, p
        Of the way, by senders or receivers dealt anew within strata, that says less.
    """

    observed: NDArray[np.float64]
    excess: NDArray[np.float64]
    z: NDArray[np.float64]
    p: NDArray[np.float64]


def divided(inputs: Inputs, ligands: Sequence[tuple[int, ...]], receptors: Sequence[tuple[int, ...]]) -> Divided:
    """Divide the excess of pairs among pairs of types.

    Parameters
    ----------
    inputs
        Cells.
    ligands, receptors
        Columns that make each side of each pair.

    Notes
    -----
    As `spaf_analysis.ligrec.spatial_moments` for the pairs alone, by type of either cell. Dealing whole cells anew
    couples l_j r_i with l_i r_j where both cells are of one type alone, so there alone the variance is 1 + r^2 times as
    large, r being the correlation within cells of the type's strata. Time grows with cells x types x pairs.
    """
    ligand, receptor = inputs.values_of(list(ligands)), inputs.values_of(list(receptors))
    sent, received = (_one_way(inputs, *sides) for sides in ((ligand, receptor), (receptor, ligand)))
    z, skewness = standardised(sent)
    other_z, other_skewness = (part.swapaxes(0, 1) for part in standardised(received))
    p = np.maximum(upper_tail(z, skewness), upper_tail(other_z, other_skewness))
    return Divided(sent.observed, sent.excess, np.minimum(z, other_z), p)


def _one_way(inputs: Inputs, own_values: sparse.csr_matrix, other_values: sparse.csr_matrix) -> Moments:
    """Return the moments of pairs: types of the cells that are dealt x types of the others x pairs."""
    n_types, n_pairs = len(inputs.types), own_values.shape[1]
    observed, excess, variance, third = (np.zeros((n_types, n_types, n_pairs)) for _ in range(4))
    both, own_squares, other_squares = (np.zeros((n_types, n_pairs)) for _ in range(3))
    of_own, of_other = (StratumMeans(values, inputs.stratum) for values in (own_values, other_values))
    for some, weights, beside in around(inputs.coordinates, inputs.block, inputs.bandwidth):
        order = np.argsort(inputs.stratum[some], kind="stable")
        cells, weights = some[order], weights[order]
        first = np.flatnonzero(np.diff(inputs.stratum[cells], prepend=-1))
        n = np.diff(first, append=len(cells))
        kind = inputs.kind[cells[first]]  # of each stratum
        raw = own_values[cells].toarray()
        own = raw - of_own(cells)
        paired = other_values[cells].toarray() - of_other(cells)
        for total, part in ((both, own * paired), (own_squares, own**2), (other_squares, paired**2)):
            np.add.at(total, kind, np.add.reduceat(part, first))
        inside = sums_inside(weights, inputs.stratum[cells], inputs.stratum[beside])
        own_weight = np.repeat(np.add.reduceat(inside, first) / np.maximum(n * (n - 1), 1), n)[:, None]
        np.add.at(excess, (kind, kind), np.add.reduceat(own * paired * own_weight, first))
        for of_type in np.unique(inputs.kind[beside]):
            near = np.flatnonzero(inputs.kind[beside] == of_type)
            around_raw = weights[:, near] @ other_values[beside[near]].toarray()
            np.add.at(observed, (kind, of_type), np.add.reduceat(raw * around_raw, first))
            surrounding = around_raw - of_other.weighed(weights[:, near], beside[near])
            np.add.at(excess, (kind, of_type), np.add.reduceat(own * surrounding, first))
            surrounding -= np.repeat(np.add.reduceat(surrounding, first) / n[:, None], n, axis=0)
            for power, moment in ((2, variance), (3, third)):
                sums = np.add.reduceat(own**power, first) * np.add.reduceat(surrounding**power, first)
                factor = 1 / np.maximum(n - 1, 1) if power == 2 else n / np.maximum((n - 1) * (n - 2), 1)
                np.add.at(moment, (kind, of_type), sums * np.where(n >= power, factor, 0.0)[:, None])
    size = own_squares * other_squares
    rho = np.divide(both**2, size, out=np.zeros_like(size), where=size > 0)
    same = np.arange(n_types)
    variance[same, same] *= 1 + np.minimum(rho, 1.0)
    return Moments(observed, excess, variance, third)


def _rows(pairs: pd.DataFrame, found: Divided, types: NDArray[np.object_]) -> pd.DataFrame:
    sender, receiver, pair = np.nonzero(found.observed > 0)
    at = (sender, receiver, pair)
    excess, observed = found.excess[at], found.observed[at]
    expected = observed - excess
    whole = found.excess.sum(axis=(0, 1))[pair]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(expected > 0, observed / expected, np.nan)
        share = np.where(whole > 0, excess / whole, np.nan)
    p = found.p[at]
    fdr = adjusted(p)
    rows = pd.DataFrame(
        {
            "ligand": pairs["ligand"].to_numpy()[pair], "receptor": pairs["receptor"].to_numpy()[pair],
            "sender": types[sender], "receiver": types[receiver], "observed": observed, "expected": expected,
            "ratio": ratio, "share": share, "z": found.z[at], "p": p, "fdr": fdr,
            "called": np.nan_to_num(fdr, nan=1.0) <= FDR,
        }
    )  # fmt: skip
    order = ["p", "z", "ligand", "receptor", "sender", "receiver"]
    return rows.sort_values(order, ascending=[True, False, True, True, True, True], ignore_index=True)

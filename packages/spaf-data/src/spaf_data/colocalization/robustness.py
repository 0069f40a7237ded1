"""How many co-localised gene pairs survive noise, a lost boundary, lost transcripts and a thinner panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from spaf_data import defaults
from spaf_data.colocalization.api import Method, check_method
from spaf_data.colocalization.cells import CellTranscripts, choose_dimensions, select_cells
from spaf_data.colocalization.communities import CellPairs, community_pairs
from spaf_data.colocalization.enrichment import pair_enrichment
from spaf_data.errors import InputError

if TYPE_CHECKING:
    from spaf_data.transcripts import Transcripts


def robustness(
    transcripts: Transcripts,
    *,
    method: Method = "communities",
    jitter: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
    kept_fraction: Sequence[float] = (0.9, 0.75, 0.5),
    dropped: Sequence[float] = (0.1, 0.25, 0.5),
    panel: Sequence[float] = (0.75, 0.5),
    nucleus: bool = True,
    radius: float = defaults.COLOCALIZATION_RADIUS,
    min_transcripts: int = defaults.COLOCALIZATION_MIN_TRANSCRIPTS,
    min_expected: float | None = None,
    fdr: float = 0.05,
    dimensions: int | None = None,
    seed: int = 0,
    n_threads: int | None = None,
) -> pd.DataFrame:
    """Compare the gene pairs that `colocalize` finds with those of perturbed transcripts.

    Parameters
    ----------
    transcripts
        Transcripts of a slide.
    method
        ``"communities"`` compares the pairs of every cell; ``"enrichment"`` the pairs that are called in the slide.
    jitter
        Standard deviations in um of Gaussian noise, added to every coordinate that is used.
    kept_fraction
        Quantiles, in (0, 1), of the distance from the cell's centroid in x and y; transcripts beyond are lost.
    dropped
        Shares, from 0 and below 1, of transcripts that are lost at random.
    panel
        Shares, above 0 and at most 1, of genes that are still measured; pairs of others do not count as lost.
    nucleus
        Also lose everything outside the nucleus, if `transcripts` say where it is.
    radius, min_transcripts, min_expected, dimensions, n_threads
        As for `colocalize`.
    fdr
        False discovery rate below which ``"enrichment"`` calls a pair.
    seed
        Seed of the noise.

    Returns
    -------
    Tidy table: ``perturbation`` ("jitter", "outer", "dropped", "panel" or "nucleus"), ``level`` (um, fraction kept,
    share lost, share of genes, NaN), ``scope`` ("slide", for communities with the pairs of all cells added up, or
    "cell", for communities only), ``cell`` (id, None for the slide), ``n_reference``, ``n_perturbed``, ``n_shared``
    (gene pairs), ``recall`` (shared / reference), ``precision`` (shared / perturbed) and ``jaccard`` (shared / in
    either); a share of nothing is NaN. Beside them ``counts``: the cosine of the counts of a cell with those before,
    of the slide the mean over cells; what noise in places takes from pairs, it leaves to counts. Without noise
    (jitter 0, dropped 0, panel 1) all four are 1.

    Raises
    ------
    InputError
        If a level is out of range, or as for `colocalize`.
    """
    check_method(method)
    if not 0 < fdr < 1:
        raise InputError(f"fdr is {fdr}; it must be between 0 and 1")
    if not all(np.isfinite(sigma) and sigma >= 0 for sigma in jitter):
        raise InputError(f"jitter is {list(jitter)}; it must be numbers of um that are not negative")
    if not all(0 < fraction < 1 for fraction in kept_fraction):
        raise InputError(f"kept_fraction is {list(kept_fraction)}; it must be between 0 and 1")
    if not all(0 <= share < 1 for share in dropped):
        raise InputError(f"dropped is {list(dropped)}; it must be from 0 and below 1")
    if not all(0 < share <= 1 for share in panel):
        raise InputError(f"panel is {list(panel)}; it must be above 0 and at most 1")
    cells = select_cells(transcripts, cells=transcripts.cells, genes=pd.Index(transcripts.genes), dimensions=dimensions)
    n_dimensions = choose_dimensions(transcripts, dimensions)

    def find(perturbed: CellTranscripts) -> np.ndarray:
        if method == "communities":
            return _pairs_of_cells(
                community_pairs(perturbed, radius=radius, min_transcripts=min_transcripts, n_threads=n_threads),
                cells.n_genes,
            )
        tested = pair_enrichment(
            perturbed, radius=radius, min_expected=min_expected, cell_scores=False, n_threads=n_threads
        ).statistics
        called = tested[tested["fdr"] < fdr]
        return (called["gene_a"].astype(np.int64) * cells.n_genes + called["gene_b"]).to_numpy()

    every = np.ones(cells.n_genes, dtype=bool)

    def perturb() -> Iterator[tuple[str, float, CellTranscripts, np.ndarray]]:
        for sigma in jitter:
            yield "jitter", float(sigma), _jittered(cells, sigma, n_dimensions, np.random.default_rng(seed)), every
        distance = _distance_from_centroid(transcripts)
        for fraction in kept_fraction:
            limit = _quantile_by_cell(distance, transcripts, fraction)
            yield "outer", float(fraction), _kept(cells, distance <= limit[transcripts.cell]), every
        for share in dropped:
            drawn = np.random.default_rng(seed).random(len(cells.gene)) >= share
            yield "dropped", float(share), _kept(cells, drawn), every
        for share in panel:
            genes = np.zeros(cells.n_genes, dtype=bool)
            n = max(round(share * cells.n_genes), 1)
            genes[np.random.default_rng(seed).permutation(cells.n_genes)[:n]] = True
            yield "panel", float(share), _kept(cells, genes[cells.gene]), genes
        if nucleus and transcripts.nucleus_known:
            yield "nucleus", float("nan"), _kept(cells, transcripts.in_nucleus), every

    reference = find(cells)
    frames = []
    counts = _counts(cells)
    for perturbation, level, perturbed, genes in perturb():
        kept = genes[reference // cells.n_genes % cells.n_genes] & genes[reference % cells.n_genes]
        by_cell = method == "communities"
        frame = _compare(reference[kept], find(perturbed), transcripts, by_cell=by_cell)
        alike = _cosines(sparse.csr_matrix(counts.multiply(genes)), _counts(perturbed))
        frame["counts"] = [np.nanmean(alike) if np.isfinite(alike).any() else np.nan, *(alike if by_cell else ())]
        frame.insert(0, "perturbation", perturbation)
        frame.insert(1, "level", level)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _jittered(cells: CellTranscripts, sigma: float, n_dimensions: int, rng: np.random.Generator) -> CellTranscripts:
    noise = rng.normal(0.0, sigma, (n_dimensions, len(cells.x))).astype(np.float32)
    z = cells.z + noise[2] if n_dimensions == 3 else cells.z
    return replace(cells, x=cells.x + noise[0], y=cells.y + noise[1], z=z)


def _kept(cells: CellTranscripts, kept: np.ndarray) -> CellTranscripts:
    before = np.concatenate(([0], np.cumsum(kept)))
    return replace(
        cells,
        x=cells.x[kept], y=cells.y[kept], z=cells.z[kept], gene=cells.gene[kept], compartment=cells.compartment[kept],
        starts=before[cells.starts], stops=before[cells.stops],
    )  # fmt: skip


def _counts(cells: CellTranscripts) -> sparse.csr_matrix:
    """Return the counts of each cell, cells x genes."""
    n = cells.n_transcripts
    rows, _ = cells.rows(np.arange(len(n)))
    cell = np.repeat(np.arange(len(n)), n)
    return sparse.csr_matrix((np.ones(len(rows)), (cell, cells.gene[rows])), shape=(len(n), cells.n_genes))


def _cosines(before: sparse.csr_matrix, after: sparse.csr_matrix) -> np.ndarray:
    """Return the cosine of the same row of two matrices of counts; NaN where one has none before."""
    products = [np.asarray(one.multiply(other).sum(axis=1)).ravel() for one, other in
                ((before, after), (before, before), (after, after))]  # fmt: skip
    together, own, others = products
    # Of equal rows, whose products are one integer, this is 1 and not nearly 1.
    length = np.sqrt(own * others)
    cosine = np.divide(together, length, out=np.zeros(len(own)), where=length > 0)
    return np.where(own > 0, cosine, np.nan)


def _distance_from_centroid(transcripts: Transcripts) -> np.ndarray:
    n = np.maximum(np.bincount(transcripts.cell, minlength=transcripts.n_cells), 1)
    offset = [
        values - (np.bincount(transcripts.cell, weights=values, minlength=transcripts.n_cells) / n)[transcripts.cell]
        for values in (transcripts.x.astype(np.float64), transcripts.y.astype(np.float64))
    ]
    return np.asarray(np.hypot(*offset))


def _quantile_by_cell(values: np.ndarray, transcripts: Transcripts, fraction: float) -> np.ndarray:
    """Smallest value of each cell that at least `fraction` of its transcripts do not exceed."""
    ordered = values[np.lexsort((values, transcripts.cell))]
    n = np.diff(transcripts.offsets)
    rank = np.maximum(np.ceil(fraction * n).astype(np.int64), 1)
    return np.take(ordered, transcripts.offsets[:-1] + rank - 1)


def _pairs_of_cells(pairs: CellPairs, n_genes: int) -> np.ndarray:
    """Return a number for each pair of each cell: ``(cell * n_genes + gene_a) * n_genes + gene_b``."""
    cell = np.repeat(np.arange(len(pairs.indptr) - 1), np.diff(pairs.indptr))
    numbers: np.ndarray = (cell * n_genes + pairs.gene_a) * n_genes + pairs.gene_b
    return numbers


def _compare(reference: np.ndarray, perturbed: np.ndarray, transcripts: Transcripts, *, by_cell: bool) -> pd.DataFrame:
    found = {
        "n_reference": reference,
        "n_perturbed": perturbed,
        "n_shared": np.intersect1d(reference, perturbed, assume_unique=True),
    }
    frame = pd.DataFrame({name: [len(pairs)] for name, pairs in found.items()})
    if by_cell:
        pairs_a_cell, n_cells = transcripts.n_genes**2, transcripts.n_cells
        of_cells = {name: np.bincount(pairs // pairs_a_cell, minlength=n_cells) for name, pairs in found.items()}
        frame = pd.concat([frame, pd.DataFrame(of_cells)], ignore_index=True)
    frame.insert(0, "scope", ["slide"] + ["cell"] * (len(frame) - 1))
    frame.insert(1, "cell", [None, *transcripts.cells.tolist()][: len(frame)])
    shared = frame["n_shared"].to_numpy(np.float64)
    denominators = {
        "recall": frame["n_reference"],
        "precision": frame["n_perturbed"],
        "jaccard": frame["n_reference"] + frame["n_perturbed"] - frame["n_shared"],
    }
    for name, denominator in denominators.items():
        out_of = denominator.to_numpy(np.float64)
        frame[name] = np.divide(shared, out_of, out=np.full(len(frame), np.nan), where=out_of > 0)
    return frame

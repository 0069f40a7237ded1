"""Gene pairs that sit together, by whether halves of the tissue agree and what is called where genes are dealt anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import false_discovery_control, norm

import spaf_data
from spaf_analysis.benchmark.base import Difference, Judged, Method, Own, Score, Settings, Task
from spaf_analysis.benchmark.tasks._replication import (
    HALVES,
    agreement,
    compared,
    dealt_anew,
    halves,
    share,
    weights_of_genes,
)
from spaf_analysis.errors import InputError
from spaf_analysis.gene_pairs.groups import gene_pair_markers
from spaf_analysis.keys import ENRICHMENT, GENE_PAIR_MARKERS

if TYPE_CHECKING:
    import anndata as ad

    from spaf_analysis.benchmark.data import Data
    from spaf_data import Transcripts

ENRICHED = "enrichment of pairs"
TOGETHER = "seen in the same cells"
MARKERS = "markers beyond their genes"
PRESENCE = "markers by presence"
CALLED = "called, genes dealt anew"
_FDR = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenePairs(Task):
    """Standard scores of gene pairs in halves of each slide, and calls where genes are dealt anew within each cell.

    Then no pair sits together and every call is false. The baseline asks in how many cells both genes are, against the
    hypergeometric expectation. Where the data name labels, so are markers among pairs, beside markers by presence.
    """

    min_cells: int = 50  # in which a pair of markers is seen

    name = "gene-pairs"
    title = "Genes that sit together"
    needs = ("transcripts", "places")
    errors = (CALLED,)

    def methods(self, given: Sequence[Method]) -> Sequence[Method]:
        """Return the one method of its own."""
        return (Own(ENRICHED, ""),)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge pairs over resampled genes."""
        transcripts, rows = data.transcripts
        of_half = halves(data.table)[rows]
        parts = [_tested(transcripts.of_cells(np.flatnonzero(of_half == half)))[0] for half in range(2)]
        both = parts[0].join(parts[1], how="inner", lsuffix="_one", rsuffix="_other")
        if both.empty:
            raise InputError("no pair of genes has enough neighbouring transcripts in both halves of the tissue.")
        weights = _weights(both.index, transcripts, settings)
        names = {method.name: "z", TOGETHER: "z_cells"}
        found = {
            name: agreement(both[f"{z}_one"].to_numpy(), both[f"{z}_other"].to_numpy(), weights)
            for name, z in names.items()
        }
        scores, differences = compared(method.name, found, measure=HALVES)
        tested, slide = _tested(dealt_anew(transcripts, settings.seed))
        weights = _weights(tested.index, transcripts, settings)
        called = {
            method.name: share((false_discovery_control(tested["p"]) <= _FDR), weights),
            TOGETHER: share(false_discovery_control(norm.sf(tested["z_cells"])) <= _FDR, weights),
        }
        for more, minus in (
            compared(method.name, called, measure=CALLED), self._markers(data, slide, method, settings)
        ):  # fmt: skip
            scores += more
            differences += minus
        note = f"{len(both):,} pairs are tested in both halves, {len(tested):,} where genes are dealt anew."
        return Judged(scores, differences, ("genes", transcripts.n_genes), [note])

    def _markers(
        self, data: Data, slide: ad.AnnData, method: Method, settings: Settings
    ) -> tuple[list[Score], list[Difference]]:
        """Return what share of pairs and groups is called where pairs say nothing beyond their genes."""
        if data.options.label is None:
            return [], []
        codes, names = data.codes(data.options.label)
        slide.obs["group"] = pd.Categorical(np.array([*names, None], dtype=object)[codes[data.transcripts[1]]])
        gene_pair_markers(slide, groupby="group", min_cells=self.min_cells, colocalization_key=ENRICHMENT)
        table = slide.uns[GENE_PAIR_MARKERS]["table"]
        weights = _weights(pd.MultiIndex.from_frame(table[["gene_a", "gene_b"]]), data.transcripts[0], settings)
        called = {
            method.name: share(table["called"].to_numpy(), weights),
            PRESENCE: share(table["called_presence"].to_numpy(), weights),
        }
        return compared(method.name, called, measure=CALLED, case=MARKERS)


def _tested(transcripts: Transcripts) -> tuple[pd.DataFrame, ad.AnnData]:
    """Return z and p of each pair tested, z of being in the same cells, and the slide with scores of cells."""
    slide = spaf_data.bin_transcripts(transcripts, min_transcripts=1)
    spaf_data.colocalize(slide, transcripts, method="enrichment", key_added=ENRICHMENT)
    table = slide.uns[ENRICHMENT]["statistics"]
    seen = sparse.csc_matrix(sparse.csr_matrix(slide.X) > 0).astype(np.float64)
    together = (seen.T @ seen).toarray()
    n = float(slide.n_obs)
    a, b = (slide.var_names.get_indexer(table[side]) for side in ("gene_a", "gene_b"))
    of_a, of_b = np.diag(together)[a], np.diag(together)[b]
    variance = of_a * of_b * (n - of_a) * (n - of_b) / (n**2 * max(n - 1, 1))
    z = np.divide(together[a, b] - of_a * of_b / n, np.sqrt(variance), out=np.zeros(len(a)), where=variance > 0)
    return table.assign(z_cells=z).set_index(["gene_a", "gene_b"])[["z", "p", "z_cells"]], slide


def _weights(pairs: pd.Index[Any], transcripts: Transcripts, settings: Settings) -> np.ndarray:
    genes = pd.Index(transcripts.genes)
    codes = np.stack([genes.get_indexer(pairs.get_level_values(level)) for level in range(2)], axis=1)
    return weights_of_genes(codes, len(genes), settings)

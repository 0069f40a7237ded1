"""Everything that a report says, computed: from the files of the stages to a frozen object ready to be laid out."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from spaf_analysis.cell_pairs import CellPairBenchmark, benchmark_cell_pairs
from spaf_analysis.clusters import cluster, embedded_cells, marker_genes, umap
from spaf_analysis.errors import InputError
from spaf_analysis.gene_pairs import GenePairs, enriched_gene_pairs
from spaf_analysis.keys import N_TRANSCRIPTS, SLIDE, SPLIT
from spaf_analysis.records import Record, own_record
from spaf_analysis.report import pictures
from spaf_analysis.report.inputs import read_inputs
from spaf_analysis.report.options import ReportOptions
from spaf_analysis.report.pictures import Picture
from spaf_analysis.report.summary import summarize
from spaf_analysis.spatial_genes import spatially_variable_genes

Progress = Callable[[str], None]

_CONTEXT = ("tissue", "condition", "species", "assay")


@dataclass(frozen=True)
class ShownGene:
    """The gene on the map of the tissue.

    Attributes
    ----------
    name
        Its symbol.
    chosen
        Whether it was chosen for its spatial pattern and not named by the user.
    morans_i
        Moran's I on the graph of neighbouring cells; NaN where it was not computed.
    """

    name: str
    chosen: bool
    morans_i: float


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes
    ----------
    slides
        Names of the slides.
    context
        What was measured: tissue, condition, species, assay, where known.
    summary
        The key numbers, as in `summary.json`.
    account
        What was read, dropped and kept.
    clusters
        Size and marker genes of each cluster.
    gene
        The gene on the map.
    benchmark
        Cell pairs in the validation region.
    gene_pairs
        Ranked gene pairs; None when the slide has none.
    split
        Number of cells of each region.
    n_not_embedded
        Cells without an embedding.
    n_parameters
        Weights of the model.
    best_step
        The step of training whose weights were kept.
    card
        The model's card, in Markdown.
    records
        Build, pretrain, embed and report.
    pictures
        For each section the figures.
    options
        The choices behind the report.
    """

    slides: tuple[str, ...]
    context: dict[str, str]
    summary: dict[str, Any]
    account: dict[str, int]
    clusters: pd.DataFrame
    gene: ShownGene
    benchmark: CellPairBenchmark
    gene_pairs: GenePairs | None
    split: dict[str, int]
    n_not_embedded: int
    n_parameters: int
    best_step: int | None
    not_learnt: dict[str, str]
    left_out: dict[str, str]
    card: str
    records: tuple[Record, ...]
    pictures: dict[str, tuple[Picture, ...]]
    options: ReportOptions


def make_report(
    embedded: Path,
    *,
    model: Path,
    run: Path,
    build: Path,
    options: ReportOptions | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compute a report from what the four stages wrote.

    Parameters
    ----------
    embedded
        The h5ad that `spaf-model embed` wrote.
    model
        Model directory.
    run
        Folder that `spaf-train pretrain` wrote.
    build
        Folder that `spaf-data build` wrote.
    options
        `ReportOptions`; the defaults if None.
    progress
        Called with the name of each step when it begins.

    Returns
    -------
    Report
        To be written by `write_report`.

    Raises
    ------
    InputError
        If something is missing or does not fit; one sentence says what.
    """
    started = time.perf_counter()
    options = options or ReportOptions()
    step = progress or (lambda name: None)

    step("reading the results of the stages")
    inputs = read_inputs(embedded, model=model, run=run, build=build, key=options.key)
    adata = inputs.adata
    step("looking for a gene with a spatial pattern")
    gene = _shown_gene(adata, options)
    step("clustering cells")
    cluster(adata, key=options.key, resolution=options.resolution, seed=options.seed)
    clusters = marker_genes(adata)
    step("laying out the UMAP")
    embedding, cells = embedded_cells(adata, options.key)
    shown = _subsample(len(cells), options)
    layout = umap(embedding[shown], seed=options.seed)
    step("judging cell pairs")
    benchmark = benchmark_cell_pairs(
        adata,
        inputs.model,
        key=options.key,
        distances=inputs.distances,
        max_pairs=options.max_pairs,
        n_replicates=options.n_replicates,
        seed=options.seed,
    )
    step("ranking gene pairs")
    gene_pairs = _gene_pairs(adata)
    step("drawing")
    drawn = {
        "account": pictures.account(inputs.account),
        "tissue": pictures.tissue(adata, gene.name, max_slides=options.max_slides),
        "umap": pictures.umap(adata, cells[shown], layout),
        "split": pictures.split(adata, max_slides=options.max_slides),
        "training": pictures.training(inputs.metrics, inputs.best_step),
        "cell_pairs": pictures.cell_pairs(benchmark),
        "gene_pairs": pictures.gene_pairs(gene_pairs),
    }
    parameters = {**dataclasses.asdict(options), "gene": gene.name}
    records = (*inputs.records, own_record("spaf-analysis report", parameters, started=started))
    summary = summarize(
        n_cells=adata.n_obs,
        n_transcripts=int(adata.obs[N_TRANSCRIPTS].sum()),
        n_genes=adata.n_vars,
        n_gene_pairs=0 if gene_pairs is None else gene_pairs.n_colocalized,
        account=inputs.account,
        benchmark=benchmark,
        records=records,
        not_learnt=inputs.not_learnt,
    )
    return Report(
        slides=tuple(_values(adata, SLIDE)),
        context={name: " / ".join(_values(adata, name)) for name in _CONTEXT if _values(adata, name)},
        summary=summary,
        account=inputs.account,
        clusters=clusters,
        gene=gene,
        benchmark=benchmark,
        gene_pairs=gene_pairs,
        split={str(name): int(n) for name, n in adata.obs[SPLIT].value_counts(sort=False).items()},
        n_not_embedded=adata.n_obs - len(cells),
        n_parameters=inputs.model.n_parameters,
        best_step=inputs.best_step,
        not_learnt=inputs.not_learnt,
        left_out=inputs.left_out,
        card=inputs.model.card,
        records=records,
        pictures=drawn,
        options=options,
    )


def _values(adata: ad.AnnData, column: str) -> list[str]:
    """Different values of a column, without those that say nothing."""
    if column not in adata.obs:
        return []
    return [value for value in sorted(set(adata.obs[column].dropna().astype(str))) if value and value != "unknown"]


def _subsample(n: int, options: ReportOptions) -> np.ndarray:
    """Positions of the cells in the UMAP: all, or as many as the options say, by the seed."""
    if n <= options.umap_cells:
        return np.arange(n)
    return np.sort(np.random.default_rng(options.seed).choice(n, options.umap_cells, replace=False))


def _shown_gene(adata: ad.AnnData, options: ReportOptions) -> ShownGene:
    if options.gene is not None and options.gene not in adata.var_names:
        near = [str(name) for name in adata.var_names if str(name).upper().startswith(options.gene.upper()[:3])][:5]
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise InputError(f"the table has no gene {options.gene!r}{hint}.")
    try:
        ranked = spatially_variable_genes(adata)
    except InputError:
        # Without a cell graph there is no spatial pattern to go by; the gene in most cells is a picture all the same.
        ranked = pd.Series(dtype=float)
    if options.gene is not None:
        return ShownGene(options.gene, False, float(ranked.get(options.gene, np.nan)))
    if len(ranked):
        return ShownGene(str(ranked.index[0]), True, float(ranked.iloc[0]))
    most = int(np.argmax(np.asarray((adata.X > 0).sum(axis=0)).ravel()))
    return ShownGene(str(adata.var_names[most]), True, float("nan"))


def _gene_pairs(adata: ad.AnnData) -> GenePairs | None:
    try:
        return enriched_gene_pairs(adata)
    except InputError:
        return None

"""Everything that a report says, computed: from the files of the stages to sections ready to be laid out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spaf_analysis.keys import N_TRANSCRIPTS, SLIDE, SPLIT, TRAIN
from spaf_analysis.report.inputs import read_inputs
from spaf_analysis.report.options import ReportOptions
from spaf_analysis.report.section import Context, Section
from spaf_analysis.report.slides import values_of
from spaf_analysis.tables import labels_of

Progress = Callable[[str], None]

_CONTEXT = ("tissue", "condition", "species", "assay")


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
        The key numbers, as in `summary.json`: sizes, and the numbers of every section.
    sections
        In the order of the page; `report["umap"]` is one by its anchor.
    family, n_parameters
        Of the model, and its weights.
    n_train_cells
        Cells of the training region.
    options
        The choices behind the report.
    """

    slides: tuple[str, ...]
    context: dict[str, str]
    summary: dict[str, Any]
    sections: tuple[Section, ...]
    family: str
    n_parameters: int
    n_train_cells: int
    options: ReportOptions

    def __getitem__(self, anchor: str) -> Any:
        """Return the section of that name, such as "account", "tissue", "umap", "pairs" or "genes"."""
        found = [section for section in self.sections if section.anchor == anchor]
        if not found:
            raise KeyError(f"no section {anchor!r}; there are: {', '.join(each.anchor for each in self.sections)}")
        return found[0]


def default_sections() -> tuple[type[Section], ...]:
    """Return the sections of a report, in their order on the page."""
    # Analyses import what is common to sections from here, so their sections are imported late.
    from spaf_analysis.annotate.section import AnnotationSection
    from spaf_analysis.attention.section import AttentionSection
    from spaf_analysis.cell_pairs.section import CellPairsSection
    from spaf_analysis.clusters.section import ClustersSection
    from spaf_analysis.deconvolution.section import DeconvolutionSection
    from spaf_analysis.gene_pairs.section import GenePairMarkersSection, GenePairsSection
    from spaf_analysis.imputation.section import ImputationSection
    from spaf_analysis.integrate.section import IntegrationSection
    from spaf_analysis.ligrec.section import LigrecSection
    from spaf_analysis.niches.section import NichesSection
    from spaf_analysis.patterns.section import PatternsSection
    from spaf_analysis.perturbation.section import PerturbationSection
    from spaf_analysis.report.sections import (
        AccountSection,
        LinkedSection,
        ProvenanceSection,
        RegionsSection,
        TrainingSection,
    )
    from spaf_analysis.spatial_genes.section import TissueSection
    from spaf_analysis.type_pairs.section import TypePairsSection

    return (
        AccountSection,
        TissueSection,
        ClustersSection,
        LinkedSection,
        AnnotationSection,
        NichesSection,
        IntegrationSection,
        RegionsSection,
        TrainingSection,
        CellPairsSection,
        TypePairsSection,
        GenePairsSection,
        GenePairMarkersSection,
        PerturbationSection,
        AttentionSection,
        LigrecSection,
        PatternsSection,
        DeconvolutionSection,
        ImputationSection,
        ProvenanceSection,
    )


def make_report(
    embedded: Path,
    *,
    model: str | Path,
    run: Path,
    build: Path,
    options: ReportOptions | None = None,
    sections: Sequence[type[Section]] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compute a report from what the four stages wrote.

    Parameters
    ----------
    embedded
        The h5ad that `spaf-model embed` wrote.
    model
        Model directory, or the name of a model that comes with spaf-model.
    run
        Folder that `spaf-train pretrain` wrote.
    build
        Folder that `spaf-data build` wrote.
    options
        `ReportOptions`; the defaults if None.
    sections
        Classes derived from `Section`, in the order of the page; `default_sections` if None.
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
    for name, column in (("label", options.label), ("cell_type", options.cell_type), ("batch", options.batch)):
        if column is not None:
            labels_of(adata, column, name)
    context = Context(inputs, options, started, step)
    made = tuple(context.section(kind) for kind in (default_sections() if sections is None else sections))
    sizes = {
        "n_cells": adata.n_obs,
        "n_transcripts": int(adata.obs[N_TRANSCRIPTS].sum()),
        "n_genes": adata.n_vars,
    }
    return Report(
        slides=tuple(values_of(adata, SLIDE)),
        context={name: " / ".join(values_of(adata, name)) for name in _CONTEXT if values_of(adata, name)},
        summary=sizes | {name: value for section in made for name, value in section.numbers().items()},
        sections=made,
        family=inputs.model.family,
        n_parameters=inputs.model.n_parameters,
        n_train_cells=int((adata.obs[SPLIT].astype(str) == TRAIN).sum()),
        options=options,
    )

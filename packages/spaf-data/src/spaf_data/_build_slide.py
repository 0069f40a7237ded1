"""The table of one slide, made and kept: what a build asks a process or a worker of a cluster to do."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spaf_data import keys
from spaf_data._build_folder import begin_slide, fingerprint, finish_slide, finished_slide
from spaf_data._memory import return_freed
from spaf_data._record import peak_rss_mb, versions
from spaf_data.binning import bin_transcripts
from spaf_data.cell_graph import spatial_neighbors
from spaf_data.colocalization import Method, colocalize, keep_enriched, leave_uncolocalized
from spaf_data.errors import InputError
from spaf_data.places import lay_apart
from spaf_data.readers import has_transcripts, read_counts, read_transcripts
from spaf_data.splits import split_regions

if TYPE_CHECKING:
    from anndata import AnnData

    from spaf_data.options import BuildOptions, SlideSource

logger = logging.getLogger(__name__)

# Called with the slide, the step at hand and the fraction of the slide that is done.
BuildProgress = Callable[[str, str, float], None]


def build_slide(
    source: SlideSource, folder: Path, options: BuildOptions, report: BuildProgress | None = None
) -> dict[str, Any]:
    """Make the table of one slide and return its summary; do nothing where an unfinished build had made it."""
    if not (folder / "slides").is_dir():
        raise InputError(f"{socket.gethostname()} does not see {folder}; --out must lie on a shared file system")
    plan = {
        "options": asdict(replace(options, allow_other_genes=False)),
        "source": {**asdict(source), "path": str(source.path)},
        "input": fingerprint(source.path),
        "versions": versions(),
    }
    earlier = finished_slide(folder, source.slide, plan)
    if earlier is not None:
        return earlier
    begin_slide(folder, source.slide)
    clock = _Clock(source.slide, report or (lambda slide, step, fraction: None))
    adata = _slide_table(source, options, clock)
    clock.step("writing", 0.9)
    file = folder / "slides" / f"{source.slide}.h5ad"
    unfinished = file.with_name(f".{file.name}")
    adata.write_h5ad(unfinished)
    os.replace(unfinished, file)
    summary = {
        **_summary(adata, source.slide),
        "file": str(file.relative_to(folder)),
        "peak_rss_mb": peak_rss_mb(),
        "seconds": clock.stop(),
    }
    finish_slide(folder, source.slide, plan, summary)
    return summary


def _slide_table(source: SlideSource, options: BuildOptions, clock: _Clock) -> AnnData:
    asks = options.check_units and not options.own_frames
    source = replace(source, reading=replace(source.reading, check_places=asks))
    if has_transcripts(source.path, platform=source.platform):
        adata = _table_of_transcripts(source, options, clock)
    else:
        clock.step("reading counts", 0.0)
        adata = read_counts(
            source.path,
            platform=source.platform,
            min_transcripts=options.min_transcripts,
            options=source.reading,
            **_described(source),
        )
        if keys.COLOCALIZATION not in adata.obsm:
            leave_uncolocalized(adata)
    clock.step("joining cells", 0.8)
    if options.own_frames:
        lay_apart(adata)
    spatial_neighbors(adata, radius=options.radius, check_units=asks)
    if not options.own_frames and adata.n_obs > 1 and adata.obsp[keys.CONNECTIVITIES].nnz == 0:
        logger.warning(
            "slide %s: no two cells lie within %g um (radius), so it has no positive pairs; spots of Visium lie 100 um "
            "apart",
            source.slide,
            options.radius,
        )
    clock.step("splitting regions", 0.85)
    _split(adata, source, options)
    return adata


def _described(source: SlideSource) -> dict[str, str | None]:
    return {key: getattr(source, key) for key in (keys.SLIDE, *keys.CONTEXT)}


def _table_of_transcripts(source: SlideSource, options: BuildOptions, clock: _Clock) -> AnnData:
    clock.step("reading transcripts", 0.0)
    transcripts = read_transcripts(
        source.path,
        platform=source.platform,
        min_qv=options.min_qv,
        options=source.reading,
        progress=lambda fraction: clock.within("reading transcripts", 0.4 * fraction),
    )
    clock.step("counting genes", 0.4)
    adata = bin_transcripts(transcripts, min_transcripts=options.min_transcripts, **_described(source))
    clock.step("co-localising genes", 0.45)
    # Of cells, models are told one of the two; of the slide, enrichment says which pairs are more than abundant genes.
    by_enrichment = options.colocalization_method == "enrichment"
    methods: dict[Method, str] = {"communities": keys.COLOCALIZATION, "enrichment": keys.COLOCALIZATION_ENRICHMENT}
    if by_enrichment:
        del methods["communities"]
    for number, (method, key) in enumerate(methods.items()):
        colocalize(
            adata,
            transcripts,
            method=method,
            radius=options.colocalization_radius,
            min_transcripts=options.colocalization_min_transcripts,
            min_expected=options.colocalization_min_expected,
            # A score of every joined pair in every cell is several times the rest of the table.
            cell_scores=by_enrichment,
            key_added=key,
            progress=partial(_report_colocalization, clock, number / len(methods), 1 / len(methods)),
        )
    if by_enrichment:
        keep_enriched(adata)
    return adata


def _report_colocalization(clock: _Clock, before: float, share: float, fraction: float) -> None:
    clock.within("co-localising genes", 0.45 + 0.35 * (before + share * fraction))


def _split(adata: AnnData, source: SlideSource, options: BuildOptions) -> None:
    chosen: dict[str, str | float]
    if source.split is not None:
        split = np.full(adata.n_obs, source.split)
        chosen = {"split": source.split}
    else:
        fraction, gap = options.validation_fraction, options.split_gap
        split = split_regions(adata.obsm[keys.SPATIAL], validation_fraction=fraction, gap=gap)
        chosen = {"validation_fraction": fraction, "gap": gap}
    adata.obs[keys.SPLIT] = pd.Categorical(split, categories=[keys.TRAIN, keys.VALIDATION, keys.GAP])
    adata.uns[keys.SPAF]["parameters"].update(chosen)


class _Clock:
    """Reports the steps of a slide and takes the time of each."""

    def __init__(self, slide: str, report: BuildProgress) -> None:
        self._slide = slide
        self._report = report
        self._began = time.perf_counter()
        self._step = ""
        self._seconds: dict[str, float] = {}

    def step(self, name: str, fraction: float) -> None:
        """Begin a step, at a fraction of the slide, without what the one before has freed."""
        return_freed()
        now = time.perf_counter()
        if self._step:
            self._seconds[self._step] = round(now - self._began, 3)
        self._began, self._step = now, name
        self._report(self._slide, name, fraction)

    def within(self, name: str, fraction: float) -> None:
        """Say how far the slide is, inside a step."""
        self._report(self._slide, name, fraction)

    def stop(self) -> dict[str, float]:
        """End the last step and return the seconds of all."""
        self.step("done", 1.0)
        return self._seconds


def _summary(adata: AnnData, slide: str) -> dict[str, Any]:
    counts = adata.obs[keys.SPLIT].value_counts()
    n_transcripts = adata.obs[keys.N_TRANSCRIPTS].to_numpy()
    parameters = adata.uns[keys.SPAF]["parameters"]
    return {
        "slide": slide,
        **({"slide_key": parameters["slide_key"]} if "slide_key" in parameters else {}),
        **{key: str(adata.obs[key].iloc[0]) for key in keys.CONTEXT},
        "n_cells": adata.n_obs,
        "n_genes": adata.n_vars,
        "n_transcripts": int(n_transcripts.sum()),
        "n_gene_pairs": len(adata.uns[keys.COLOCALIZATION]["pairs"]),
        "gene_pair_tests": adata.uns.get(keys.COLOCALIZATION_ENRICHMENT, {}).get("account"),
        "median_transcripts": float(np.median(n_transcripts)),
        "median_genes": float(np.median(np.diff(adata.X.indptr))),
        "split": {name: int(counts[name]) for name in (keys.TRAIN, keys.VALIDATION, keys.GAP)},
        "account": adata.uns[keys.SPAF]["account"],
    }

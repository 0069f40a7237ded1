"""From bundles to slide tables and a corpus."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem

from spaf_data import keys
from spaf_data._build_folder import (
    COMMAND,
    RECORD,
    begin_slide,
    check_out,
    fingerprint,
    finish_slide,
    finished_slide,
    keep_slides,
    workplace,
    write_json,
)
from spaf_data._build_genes import check_genes_before, gene_account, said_of_genes
from spaf_data._memory import return_freed
from spaf_data._record import peak_rss_mb, run_record, versions
from spaf_data._tasks import Failure, run_here, run_in_processes, run_on_cluster
from spaf_data.binning import bin_transcripts
from spaf_data.cell_graph import spatial_neighbors
from spaf_data.colocalization import Method, colocalize, leave_uncolocalized
from spaf_data.corpus import write_corpus
from spaf_data.corpus.slide import read_headers
from spaf_data.errors import InputError
from spaf_data.folders import claim, restore
from spaf_data.gene_identity import GeneNames, check_gene_ids, join_genes
from spaf_data.options import BuildOptions, SlideSource
from spaf_data.places import lay_apart
from spaf_data.readers import has_transcripts, read_counts, read_transcripts
from spaf_data.sources import each_slide
from spaf_data.splits import split_regions

logger = logging.getLogger(__name__)

BuildProgress = Callable[[str, str, float], None]


def build_corpus(
    sources: Sequence[SlideSource],
    out: str | Path,
    options: BuildOptions | None = None,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: BuildProgress | None = None,
) -> dict[str, Any]:
    """Build slide tables and a corpus from bundles.

    A slide that fails does not lose the others: the corpus is made of those that succeeded, and the record names the
    rest. Slide tables and the bytes of the corpus do not depend on `jobs` and `scheduler`.

    Parameters
    ----------
    sources
        The bundles. One is a slide, but for an AnnData or the table of a SpatialData that says the slides of its cells:
        it makes as many, called as they are in it (after the source's name where that was given: ``NAME-SLIDE``).
    out
        Folder to make: ``slides/<slide>.h5ad`` for each slide, ``corpus/`` with its ``manifest.json``, and
        ``build.json``, the record that is also returned.
    options
        `BuildOptions`; the defaults when None.
    jobs
        Slides built at a time, each in a process of its own if more than one. Memory is that of so many slides. (A
        script that asks for processes needs ``if __name__ == "__main__":`` around its work.)
    scheduler
        Address of a dask.distributed scheduler, such as ``tcp://node1:8786``, whose workers build the slides instead;
        inputs and `out` must lie on a file system that they share.
    overwrite
        Replace an earlier build in `out`. A folder that is not a build is never replaced.
    progress
        Called with the slide, the step at hand and the fraction of the slide that is done; in other processes the
        steps of a slide are not seen.

    Returns
    -------
    dict
        ``command``, ``versions``, ``parameters``, ``seconds``; ``distances`` of the corpus; ``peak_rss_mb``, the
        largest resident memory of one process, this or one that built a slide; the totals ``n_cells``,
        ``n_transcripts`` (in these cells), ``n_genes``, ``n_gene_pairs``; ``slides``: for each its file, context,
        ``account``, sizes, ``genes`` (how many another slide has too, how many the corpus calls otherwise, and which
        columns were added up), cells of each split, ``gene_pair_tests`` (the account of `colocalize`; None without
        transcripts), ``peak_rss_mb`` and seconds of each step; ``other_genes``, a sentence for each group of slides
        that share (nearly) no genes with the first, ``unclear_genes``, one where a few genes go by id alone in one
        slide and by symbol alone in another; and ``failed``: ``slide`` and ``reason`` of each that has no table.

    Raises
    ------
    InputError
        If no slide can be used, two slides have the same name, `out` is taken or another process writes to it, the
        slides make no corpus, or no scheduler answers. Finished slides are kept for the next call, and a note of the
        error says where.

    Examples
    --------
    >>> import tempfile
    >>> from spaf_data import simulate_bundle
    >>> folder = Path(tempfile.mkdtemp())
    >>> bundle = simulate_bundle(folder / "bundle", n_cells=400, n_genes=40, seed=0)
    >>> record = build_corpus([SlideSource(path=bundle, slide="s1")], folder / "built")
    >>> sorted(file.name for file in (folder / "built").iterdir())
    ['build.json', 'corpus', 'slides']
    """
    started = time.perf_counter()
    out = Path(out)
    options = options or BuildOptions()
    sources = [slide for source in sources for slide in each_slide(source)]
    report = progress or (lambda slide, step, fraction: None)
    _check_names(sources)
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, not {jobs}")
    check_genes_before(sources, options)
    with claim(out, COMMAND):
        restore(out)
        check_out(out, overwrite=overwrite)
        return _build(sources, out, options, report, jobs, scheduler, started)


def _build(
    sources: Sequence[SlideSource],
    out: Path,
    options: BuildOptions,
    report: BuildProgress,
    jobs: int,
    scheduler: str | None,
    started: float,
) -> dict[str, Any]:
    """Build into a folder that is claimed and may be replaced."""
    with workplace(out) as folder:
        summaries, failed = _build_slides(sources, folder, options, report, jobs, scheduler)
        return_freed()
        report("corpus", "writing blocks", 0.0)
        corpus = write_corpus(
            [folder / summary["file"] for summary in summaries],
            folder / "corpus",
            distances=options.distances,
            block_cells=options.block_cells,
            allow_other_genes=options.allow_other_genes,
            overwrite=True,  # what a build that was killed at its very end had finished
        )
        report("corpus", "done", 1.0)
        plan = {
            "options": asdict(options),
            "slides": [{**asdict(source), "path": source.path.name} for source in sources],
        }
        record = {
            # As JSON has it, so that the record is what its file holds.
            **run_record(COMMAND, json.loads(json.dumps(plan)), started),
            "distances": asdict(options.distances),
            "peak_rss_mb": max(peak_rss_mb(), *(summary["peak_rss_mb"] for summary in summaries)),
            "n_cells": sum(summary["n_cells"] for summary in summaries),
            "n_transcripts": sum(summary["n_transcripts"] for summary in summaries),
            "n_genes": len(corpus.genes),
            "n_gene_pairs": _n_gene_pairs([folder / summary["file"] for summary in summaries]),
            **said_of_genes([_gene_names(folder / summary["file"]) for summary in summaries]),
            "slides": [{**summary, "genes": gene_account(corpus, summary["slide"])} for summary in summaries],
            "failed": failed,
        }
        keep_slides(folder, {Path(summary["file"]).name for summary in summaries})
        write_json(folder / RECORD, record)
    return record


def _check_names(sources: Sequence[SlideSource]) -> None:
    if not sources:
        raise InputError("there is no slide to build")
    names = [source.slide for source in sources]
    for name in names:
        if names.count(name) > 1:
            files = ", ".join(source.path.name for source in sources if source.slide == name)
            raise InputError(
                f"two bundles are named {name!r} ({files}); a slide's name must be its own, and a sheet (--sheet) "
                "gives them names"
            )


def _build_slides(
    sources: Sequence[SlideSource],
    folder: Path,
    options: BuildOptions,
    report: BuildProgress,
    jobs: int,
    scheduler: str | None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Build all slides; return the summaries of those that succeeded and the reasons of the others, in order."""
    sources = [replace(source, path=source.path.absolute()) for source in sources]
    here = scheduler is None and (jobs == 1 or len(sources) == 1)
    if here and len(sources) == 1:
        try:
            return [_build_slide(sources[0], folder, options, report)], []
        except InputError as error:
            raise InputError(f"slide {sources[0].slide}: {error}") from error
    if here:
        outcomes = run_here(partial(_build_slide, folder=folder, options=options, report=report), sources)
    else:
        for source in sources:
            report(source.slide, "waiting or being built", 0.0)
        task = partial(_build_slide, folder=folder, options=options)
        outcomes = (
            run_in_processes(task, sources, jobs) if scheduler is None else run_on_cluster(task, sources, scheduler)
        )
    ended: dict[int, dict[str, Any] | Failure] = {}
    genes: list[GeneNames] = []
    for number, outcome in outcomes:
        ended[number] = outcome
        if not isinstance(outcome, Failure):
            # What no further slide can mend is said as soon as it is known, and not when all are built.
            genes.append(_gene_names(folder / outcome["file"]))
            check_gene_ids(genes)
        report(sources[number].slide, "failed" if isinstance(outcome, Failure) else "done", 1.0)
    summaries, failed = [], []
    for source, (_, outcome) in zip(sources, sorted(ended.items()), strict=True):
        if isinstance(outcome, Failure):
            failed.append({"slide": source.slide, "reason": outcome.reason})
        else:
            summaries.append(outcome)
    if not summaries:
        reasons = "; ".join(f"{failure['slide']}: {failure['reason']}" for failure in failed)
        raise InputError(f"none of the {len(failed)} slides can be built: {reasons}")
    return summaries, failed


def _build_slide(
    source: SlideSource, folder: Path, options: BuildOptions, report: BuildProgress | None = None
) -> dict[str, Any]:
    """Make the table of one slide and return its summary; do nothing where an unfinished build had made it."""
    if not (folder / "slides").is_dir():
        raise InputError(f"{socket.gethostname()} does not see {folder}; --out must lie on a shared file system")
    plan = {
        "options": asdict(replace(options, allow_other_genes=False)),  # which is no matter of a slide
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
    # Communities are what models are trained on; enrichment says which pairs are more than two abundant genes.
    methods: dict[Method, str] = {"communities": keys.COLOCALIZATION, "enrichment": keys.COLOCALIZATION_ENRICHMENT}
    for number, (method, key) in enumerate(methods.items()):
        colocalize(
            adata,
            transcripts,
            method=method,
            radius=options.colocalization_radius,
            min_transcripts=options.colocalization_min_transcripts,
            min_expected=options.colocalization_min_expected,
            # A score of every joined pair in every cell is several times the rest of the table.
            cell_scores=False,
            key_added=key,
            progress=partial(_report_colocalization, clock, number / len(methods), 1 / len(methods)),
        )
    return adata


def _report_colocalization(clock: _Clock, before: float, share: float, fraction: float) -> None:
    clock.within("co-localising genes", 0.45 + 0.35 * (before + share * fraction))


def _split(adata: AnnData, source: SlideSource, options: BuildOptions) -> None:
    chosen: dict[str, str | float]
    if source.split is not None:
        split = np.full(adata.n_obs, source.split)
        chosen = {"split": source.split}
    else:
        fraction, gap = options.validation_fraction, options.gap
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


def _n_gene_pairs(files: Sequence[Path]) -> int:
    """Return the number of different gene pairs that are co-localised in some cell of some slide."""
    genes = join_genes([_gene_names(file) for file in files])
    found = np.empty(0, np.int64)
    for file, columns in zip(files, genes.columns, strict=True):
        with h5py.File(file) as store:
            pairs = read_elem(store[f"uns/{keys.COLOCALIZATION}/pairs"])
        index = pd.Index(_gene_names(file).names)
        codes = np.stack([columns[index.get_indexer(pairs[name].astype(str))] for name in ("gene_a", "gene_b")])
        codes = codes[:, codes[0] != codes[1]].astype(np.int64)
        found = np.union1d(found, codes.min(axis=0) * len(genes.genes) + codes.max(axis=0))
    return len(found)


def _gene_names(file: Path) -> GeneNames:
    return read_headers(file)[0].gene_names()

"""From bundles to slide tables and a corpus."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem

from spaf_data import defaults, keys
from spaf_data._build_folder import COMMAND, RECORD, check_out, keep_slides, workplace, write_json
from spaf_data._build_genes import check_genes_before, gene_account, said_of_genes
from spaf_data._build_slide import BuildProgress, build_slide
from spaf_data._memory import return_freed
from spaf_data._record import peak_rss_mb, run_record
from spaf_data._tasks import Failure, run_here, run_in_processes, run_on_cluster
from spaf_data.corpus import write_corpus
from spaf_data.corpus.slide import read_headers
from spaf_data.errors import InputError
from spaf_data.folders import claim, restore
from spaf_data.gene_identity import GeneNames, check_gene_ids, join_genes
from spaf_data.options import BuildOptions, SlideSource
from spaf_data.sources import each_slide


def build_corpus(
    sources: Sequence[SlideSource],
    out: str | Path,
    options: BuildOptions | None = None,
    *,
    jobs: int = defaults.JOBS,
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
            return [build_slide(sources[0], folder, options, report)], []
        except InputError as error:
            raise InputError(f"slide {sources[0].slide}: {error}") from error
    if here:
        outcomes = run_here(partial(build_slide, folder=folder, options=options, report=report), sources)
    else:
        for source in sources:
            report(source.slide, "waiting or being built", 0.0)
        task = partial(build_slide, folder=folder, options=options)
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
        slides_of: dict[str, list[str]] = {}
        for failure in failed:
            slides_of.setdefault(failure["reason"], []).append(failure["slide"])
        reasons = "; ".join(f"{', '.join(slides)}: {reason}" for reason, slides in slides_of.items())
        raise InputError(f"none of the {len(failed)} slides can be built: {reasons}")
    return summaries, failed


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

"""From bundles to slide tables and a corpus."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem

from spaf_data import keys
from spaf_data._build_folder import COMMAND, RECORD, check_out, fingerprint, read_json, workplace, write_json
from spaf_data._record import run_record, versions
from spaf_data.binning import bin_transcripts
from spaf_data.cell_graph import spatial_neighbors
from spaf_data.colocalization import Method, colocalize, leave_uncolocalized
from spaf_data.corpus import Corpus, write_corpus
from spaf_data.errors import InputError
from spaf_data.readers import ReadOptions, has_transcripts, read_counts, read_transcripts
from spaf_data.splits import split_regions

logger = logging.getLogger(__name__)

BuildProgress = Callable[[str, str, float], None]


@dataclass(frozen=True, kw_only=True)
class SlideSource:
    """A run and what it is; what is None is taken from the run, else ``"unknown"``."""

    path: Path
    slide: str
    tissue: str | None = None
    condition: str | None = None
    species: str | None = None
    assay: str | None = None
    platform: str = "auto"
    reading: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        if not self.slide or self.slide.startswith(".") or set(self.slide) & set("/\\\0"):
            raise InputError(
                f"a slide's name becomes a file name, so {self.slide!r} cannot be one; give another (--slide)"
            )


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How slides and corpus are made; lengths in um."""

    min_qv: float = 20.0  # transcripts of lower quality are dropped
    min_transcripts: int = 30  # cells with fewer are dropped
    radius: float = 30.0  # cells closer than this are neighbours and positive pairs
    colocalization_radius: float = 5.0  # transcripts closer than this are proximal
    colocalization_min_transcripts: int = 3  # of a gene in a community of transcripts
    validation_fraction: float = 0.3  # of each slide's cells
    gap: float = 60.0  # between the regions of training and validation
    block_cells: int = 1024  # cells a block of the corpus owns at most

    def __post_init__(self) -> None:
        for name in ("radius", "colocalization_radius"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0 um, not {getattr(self, name):g}")
        for name in ("min_transcripts", "colocalization_min_transcripts", "block_cells"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction must lie between 0 and 1, not {self.validation_fraction:g}")
        if self.gap <= self.radius:
            raise InputError(
                f"gap ({self.gap:g} um) must be wider than radius ({self.radius:g} um), or cells of training and "
                "validation would be neighbours"
            )


def build_corpus(
    sources: Sequence[SlideSource],
    out: str | Path,
    options: BuildOptions | None = None,
    *,
    overwrite: bool = False,
    progress: BuildProgress | None = None,
) -> dict[str, Any]:
    """Build slide tables and a corpus from bundles.

    Parameters
    ----------
    sources
        The bundles, one a slide.
    out
        Folder to make: ``slides/<slide>.h5ad`` for each slide, ``corpus/`` with its ``manifest.json``, and
        ``build.json``, the record that is also returned.
    options
        `BuildOptions`; the defaults when None.
    overwrite
        Replace an earlier build in `out`. A folder that is not a build is never replaced.
    progress
        Called with the slide, the step at hand and the fraction of the slide that is done.

    Returns
    -------
    dict
        ``command``, ``versions``, ``parameters``, ``seconds``, ``peak_rss_mb``; the totals ``n_cells``,
        ``n_transcripts`` (in these cells), ``n_genes``, ``n_gene_pairs``; and ``slides``: for each its file, context,
        ``account``, sizes, cells of each split and seconds of each step.

    Raises
    ------
    InputError
        If an input cannot be used, two slides have the same name, or `out` is taken.

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
    report = progress or (lambda slide, step, fraction: None)
    _check_names(sources)
    check_out(out, overwrite=overwrite)
    plan = {
        "options": asdict(options),
        "slides": [{**asdict(source), "path": source.path.name} for source in sources],
    }
    inputs = [fingerprint(source.path) for source in sources]
    with workplace(out, {**plan, "inputs": inputs, "versions": versions()}) as folder:
        summaries = [_build_slide(source, folder, options, report) for source in sources]
        report("corpus", "writing blocks", 0.0)
        write_corpus(
            [folder / summary["file"] for summary in summaries],
            folder / "corpus",
            positive_radius=options.radius,
            block_cells=options.block_cells,
        )
        report("corpus", "done", 1.0)
        record = {
            **run_record(COMMAND, plan, started),
            "n_cells": sum(summary["n_cells"] for summary in summaries),
            "n_transcripts": sum(summary["n_transcripts"] for summary in summaries),
            "n_genes": len(Corpus(folder / "corpus").genes),
            "n_gene_pairs": _n_gene_pairs(folder / summary["file"] for summary in summaries),
            "slides": summaries,
        }
        write_json(folder / RECORD, record)
    return record


def _check_names(sources: Sequence[SlideSource]) -> None:
    if not sources:
        raise InputError("there is no slide to build")
    names = [source.slide for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two bundles are named {name!r}; a slide's name must be its own")


def _build_slide(source: SlideSource, folder: Path, options: BuildOptions, report: BuildProgress) -> dict[str, Any]:
    """Make the table of one slide and return its summary; do nothing where a killed build had made it."""
    done = folder / "slides" / f"{source.slide}.json"
    earlier = read_json(done)
    if earlier is not None:
        report(source.slide, "done", 1.0)
        return earlier
    clock = _Clock(source.slide, report)
    try:
        adata = _slide_table(source, options, clock)
    except InputError as error:
        raise InputError(f"slide {source.slide}: {error}") from error
    clock.step("writing", 0.9)
    file = folder / "slides" / f"{source.slide}.h5ad"
    unfinished = file.with_name(f".{file.name}")
    adata.write_h5ad(unfinished)
    os.replace(unfinished, file)
    summary = {**_summary(adata, source.slide), "file": str(file.relative_to(folder)), "seconds": clock.stop()}
    write_json(done, summary)
    return summary


def _slide_table(source: SlideSource, options: BuildOptions, clock: _Clock) -> AnnData:
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
    spatial_neighbors(adata, radius=options.radius)
    if adata.n_obs > 1 and adata.obsp[keys.CONNECTIVITIES].nnz == 0:
        logger.warning(
            "slide %s: no two cells lie within %g um (radius), so it has no positive pairs; spots of Visium lie 100 um "
            "apart",
            source.slide,
            options.radius,
        )
    clock.step("splitting regions", 0.85)
    split = split_regions(adata.obsm[keys.SPATIAL], validation_fraction=options.validation_fraction, gap=options.gap)
    adata.obs[keys.SPLIT] = pd.Categorical(split, categories=[keys.TRAIN, keys.VALIDATION, keys.GAP])
    adata.uns[keys.SPAF]["parameters"].update(validation_fraction=options.validation_fraction, gap=options.gap)
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
    methods: dict[str, Method] = {
        keys.COLOCALIZATION: "communities",
        keys.COLOCALIZATION_ENRICHMENT: "enrichment",
    }
    for key, method in methods.items():
        colocalize(
            adata,
            transcripts,
            method=method,
            radius=options.colocalization_radius,
            min_transcripts=options.colocalization_min_transcripts,
            key_added=key,
        )
    # A score of every joined pair in every cell is several times the rest of the table; the slide's statistics stay.
    del adata.obsm[keys.COLOCALIZATION_ENRICHMENT]
    return adata


class _Clock:
    """Reports the steps of a slide and takes the time of each."""

    def __init__(self, slide: str, report: BuildProgress) -> None:
        self._slide = slide
        self._report = report
        self._began = time.perf_counter()
        self._step = ""
        self._seconds: dict[str, float] = {}

    def step(self, name: str, fraction: float) -> None:
        """Begin a step, at a fraction of the slide."""
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
    return {
        "slide": slide,
        **{key: str(adata.obs[key].iloc[0]) for key in keys.CONTEXT},
        "n_cells": adata.n_obs,
        "n_genes": adata.n_vars,
        "n_transcripts": int(n_transcripts.sum()),
        "n_gene_pairs": len(adata.uns[keys.COLOCALIZATION]["pairs"]),
        "median_transcripts": float(np.median(n_transcripts)),
        "median_genes": float(np.median(np.diff(adata.X.indptr))),
        "split": {name: int(counts[name]) for name in (keys.TRAIN, keys.VALIDATION, keys.GAP)},
        "account": adata.uns[keys.SPAF]["account"],
    }


def _n_gene_pairs(files: Iterator[Path]) -> int:
    """Return the number of different gene pairs that are co-localised in some cell of some slide."""
    found: set[tuple[str, str]] = set()
    for file in files:
        with h5py.File(file) as store:
            pairs = read_elem(store[f"uns/{keys.COLOCALIZATION}/pairs"])
        found.update(zip(pairs["gene_a"].astype(str), pairs["gene_b"].astype(str), strict=True))
    return len(found)

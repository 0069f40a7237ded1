"""From transcripts to gene embeddings."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from numpy.typing import NDArray

from spaf_data import GeneProximity, SlideSource, claim, gene_proximity, has_transcripts, read_transcripts
from spaf_model import InputError
from spaf_train._checks import require
from spaf_train._record import run_record
from spaf_train.gene_embedding.factorisation import association, factorise
from spaf_train.gene_embedding.options import GeneEmbeddingOptions
from spaf_train.gene_embedding.stored import GeneEmbeddings, check_out

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]

_READING = 0.9  # of the time of a slide


def gene_embeddings(proximity: GeneProximity, options: GeneEmbeddingOptions = GeneEmbeddingOptions()) -> GeneEmbeddings:
    """Turn counts of proximal transcripts into vectors of genes.

    The log ratio of observed and expected pairs of transcripts (`association`) is factorised into the eigenvectors of
    its largest eigenvalues (`factorise`). Genes with too few transcripts are left out of it, and get zeros.

    Parameters
    ----------
    proximity
        Proximal pairs of transcripts of one or several slides.
    options
        How they become vectors; what concerns the counting is not looked at.

    Raises
    ------
    InputError
        If too few genes have enough transcripts for the dimensions, or no two transcripts are proximal.

    Examples
    --------
    >>> import tempfile
    >>> from spaf_data import gene_proximity, read_transcripts, simulate_bundle
    >>> bundle = simulate_bundle(tempfile.mkdtemp(), n_cells=50, n_genes=60, seed=0)
    >>> found = gene_embeddings(gene_proximity(read_transcripts(bundle)), GeneEmbeddingOptions(dimensions=8))
    >>> found.vectors.shape
    (60, 8)
    """
    enough = np.flatnonzero(proximity.n_transcripts >= options.min_transcripts)
    if len(enough) < 2:
        raise InputError(
            f"{len(enough)} of {len(proximity.genes)} genes have {options.min_transcripts} transcripts in the cells "
            "that are looked at (min_transcripts); at least 2 are needed."
        )
    if options.dimensions > len(enough) - 1:
        raise InputError(
            f"dimensions is {options.dimensions}, and must be at most {len(enough) - 1}: {len(enough)} genes have "
            f"{options.min_transcripts} transcripts."
        )
    between = proximity.observed[np.ix_(enough, enough)]
    if not np.triu(between, 1).any():
        raise InputError(f"No two transcripts of different genes lie within {proximity.radius:g} um of each other.")
    whole = association(proximity, null=options.null, pseudo_count=options.pseudo_count)
    of_enough, weights = factorise(whole[np.ix_(enough, enough)], options.dimensions)
    vectors = np.zeros((len(proximity.genes), options.dimensions), np.float32)
    vectors[enough] = of_enough
    embedded = np.zeros(len(proximity.genes), bool)
    embedded[enough] = True
    genes = pd.DataFrame(
        {
            "gene": proximity.genes,
            "gene_id": proximity.gene_ids or [""] * len(proximity.genes),
            "n_transcripts": proximity.n_transcripts,
            "embedded": embedded,
        }
    )
    return GeneEmbeddings(genes=genes, vectors=vectors, weights=weights.astype(np.float32))


def train_gene_embeddings(
    sources: Sequence[SlideSource],
    out: str | Path,
    options: GeneEmbeddingOptions = GeneEmbeddingOptions(),
    *,
    build: str | Path | None = None,
    progress: Progress | None = None,
) -> GeneEmbeddings:
    """Read the transcripts of slides, one slide at a time, and write the embeddings of their genes.

    Parameters
    ----------
    sources
        Runs with transcripts.
    out
        Folder to make: ``embeddings.safetensors``, ``genes.csv`` and ``gene_embeddings.json``. Earlier embeddings there
        are replaced.
    options
        What is counted and how it becomes vectors.
    build
        Folder of a build of slides of the same names: only cells of its training split are looked at, so that what a
        model is judged on has no part in what it starts from; a slide without such cells is left out. None: all cells.
    progress
        Called with the name of the slide and the fraction of it that is done.

    Raises
    ------
    InputError
        If a source has no transcripts or cannot be read, `build` lacks one of them or has no training cell of any,
        `out` is taken, or as for `gene_embeddings`.
    """
    out = Path(out)
    with claim(out, "spaf-train gene-embeddings"):
        check_out(out)
        return _train(sources, out, options, build, progress)


def _train(
    sources: Sequence[SlideSource],
    out: Path,
    options: GeneEmbeddingOptions,
    build: str | Path | None,
    progress: Progress | None,
) -> GeneEmbeddings:
    """Train into a folder that is claimed."""
    started = time.perf_counter()
    require(bool(sources), "There is no slide to read.")
    chosen = [(source, None if build is None else _training_cells(Path(build), source.slide)) for source in sources]
    # A slide that is held out as a whole has nothing to give.
    chosen = [(source, cells) for source, cells in chosen if cells is None or len(cells)]
    require(
        bool(chosen), f"{build} has no training cell of the slides {', '.join(source.slide for source in sources)}."
    )
    slides: list[dict[str, Any]] = []
    report = progress or (lambda slide, fraction: None)
    proximity = GeneProximity.total(_count(chosen, options, slides, report))
    found = gene_embeddings(proximity, options)
    n_embedded = int(found.genes["embedded"].sum())
    if n_embedded < len(found.genes):
        logger.warning(
            "%d of %d genes have fewer than %d transcripts and get zeros.",
            len(found.genes) - n_embedded,
            len(found.genes),
            options.min_transcripts,
        )
    parameters = {
        **dataclasses.asdict(options),
        "slides": [source.path.name for source, _ in chosen],
        "cells": "all" if build is None else "training split",
    }
    record = {
        **run_record("spaf-train gene-embeddings", parameters, started=started, packages=("numba",)),
        "method": "eigenvectors of the log ratio of observed and expected proximal pairs of transcripts",
        "n_genes": len(found.genes),
        "n_embedded": n_embedded,
        "n_cells": proximity.n_cells,
        "n_transcripts": int(proximity.n_transcripts.sum()),
        "n_proximal_pairs": proximity.n_pairs,
        "slides": slides,
    }
    found = dataclasses.replace(found, record=record)
    found.save(out)
    return found


def _count(
    chosen: Sequence[tuple[SlideSource, NDArray[np.object_] | None]],
    options: GeneEmbeddingOptions,
    slides: list[dict[str, Any]],
    report: Progress,
) -> Iterator[GeneProximity]:
    """Yield the counts of each slide, and note what it held."""
    for source, cells in chosen:
        if not has_transcripts(source.path, platform=source.platform):
            raise InputError(f"{source.path} has counts and no transcripts, which gene embeddings are made of.")
        transcripts = read_transcripts(
            source.path,
            platform=source.platform,
            min_qv=options.min_qv,
            options=source.reading,
            progress=partial(_report_part, report, source.slide, 0.0, _READING),
        )
        found = gene_proximity(
            transcripts,
            cells=cells,
            radius=options.radius,
            across_cells=options.across_cells,
            progress=partial(_report_part, report, source.slide, _READING, 1.0 - _READING),
        )
        slides.append(
            {
                "slide": source.slide,
                "n_cells": found.n_cells,
                "n_transcripts": int(found.n_transcripts.sum()),
                "n_proximal_pairs": found.n_pairs,
                "account": transcripts.account.as_dict(),
            }
        )
        del transcripts
        yield found


def _report_part(report: Progress, slide: str, before: float, share: float, fraction: float) -> None:
    report(slide, before + share * fraction)


def _training_cells(build: Path, slide: str) -> NDArray[np.object_]:
    file = build / "slides" / f"{slide}.h5ad"
    if not file.is_file():
        there = sorted(path.stem for path in (build / "slides").glob("*.h5ad"))
        raise InputError(f"{build} is no build with a slide {slide!r}; its slides are: {', '.join(there) or 'none'}.")
    try:
        with h5py.File(file) as opened:
            obs = read_elem(opened["obs"])
    except (OSError, KeyError) as error:
        raise InputError(f"{file} cannot be read as an h5ad: {str(error).splitlines()[0]}") from error
    if "split" not in obs:
        raise InputError(f"{file} has no obs column 'split'; it has: {', '.join(map(str, obs.columns))}.")
    names: NDArray[np.object_] = obs.index[obs["split"] == "train"].to_numpy()
    return names

"""Write a corpus: slides in, shards and a manifest out."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from importlib.metadata import version
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt
from scipy import sparse

from spaf_data import defaults, keys
from spaf_data.corpus.block import Block
from spaf_data.corpus.journal import Journal
from spaf_data.corpus.manifest import NAME, Manifest
from spaf_data.corpus.measured import runs_of
from spaf_data.corpus.reader import Corpus
from spaf_data.corpus.shard import Shard, is_safe_name, safe_name, write_shard
from spaf_data.corpus.slide import Slide, SlideHeader, SlideTable, read_headers, read_slide
from spaf_data.corpus.tiling import BlockCells, blocks_of_cells, tile_cells
from spaf_data.distances import Distances
from spaf_data.errors import InputError
from spaf_data.folders import claim
from spaf_data.gene_identity import check_same_genes, join_genes, unclear_genes
from spaf_data.gene_statistics import GeneStatistics
from spaf_data.pairs import positive_pairs

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")

_CELLS_AT_A_TIME = 1 << 15  # of which statistics are taken


def _alone(write: Callable[_P, Corpus]) -> Callable[_P, Corpus]:
    """Let one process at a time write to the folder that is the argument ``path`` of a function."""

    @wraps(write)
    def claimed(*args: _P.args, **options: _P.kwargs) -> Corpus:
        path = signature(write).bind(*args, **options).arguments["path"]
        with claim(path, write.__name__):
            return write(*args, **options)

    return claimed


@_alone
def write_corpus(
    slides: Iterable[Slide],
    path: str | Path,
    *,
    positive_radius: float | None = None,
    distances: Distances | None = None,
    block_cells: int = defaults.BLOCK_CELLS,
    shard_blocks: int = 512,
    split_key: str = keys.SPLIT,
    colocalization_key: str | None = keys.COLOCALIZATION,
    min_colocalization: float = 0.0,
    allow_other_genes: bool = False,
    resume: bool = True,
    overwrite: bool = False,
) -> Corpus:
    """Write slides as a corpus: shards of blocks, and a manifest.

    Each split of each slide is cut into compact tiles. A tile with its halo is a block, and some hundred blocks are a
    shard, ``<slide>-<split>-<number>.tar``. ``manifest.json`` comes last. The bytes are a function of the contents of
    the slides and the arguments: not of the order of rows, nor of whether the build was killed and taken up again.

    Parameters
    ----------
    slides
        Slide AnnData or paths of h5ad files: integer counts in ``X``, centroids in um in ``obsm["spatial"]``, and in
        ``obs`` the ``slide``, its ``tissue``, ``condition``, ``species`` and ``assay`` (one value each a slide) and the
        split. A table of several slides is written slide by slide. Paths are read one at a time.
    path
        Folder of the corpus.
    positive_radius
        Cells at most this far apart, in um, are positive pairs: 30 if nothing is given.
    distances
        The radius with the distances of hard and easy negatives, for all who read the corpus; else these follow the
        radius (`Distances`).
    block_cells
        Most cells that a block owns.
    shard_blocks
        Blocks in a shard.
    split_key
        Column of ``obs`` with the split of each cell. Cells of the split ``gap`` are left out.
    colocalization_key
        Key of the co-localised gene pairs in ``obsm`` and ``uns``. With None blocks hold none.
    min_colocalization
        Gene pairs above this value in a cell are co-localised in it.
    allow_other_genes
        Slides may have other genes than the rest of the corpus (less than 5 % in common with it), as slides of another
        species may without this.
    resume
        Keep the complete shards of a build into the same folder that did not finish.
    overwrite
        Replace a finished corpus.

    Returns
    -------
    The corpus.

    Raises
    ------
    InputError
        If a slide cannot be used, two slides have one name or disagree about a gene's id or name genes so that they
        cannot be compared, slides share no genes with the others and that is not allowed, a positive pair crosses
        from one split to another, or the folder holds a finished corpus or something else or is being written.
    OSError
        If writing fails, for instance on a full disk. Nothing is then left under its final name but complete shards,
        which the next call keeps.

    Notes
    -----
    The genes of the corpus are those of the first slide in their order, then the new ones of the next slide, and so
    on. Which are the same is told by Ensembl id without version where both slides have one, else by symbol; the
    manifest says for each slide which it measures, how many go by another name there, how many another slide has too,
    and which columns were added up. A gene that a slide does not measure has no counts in its blocks (`Corpus.measured`
    tells it from one that was not found). Memory is that of one slide.

    Examples
    --------
    >>> corpus = write_corpus(["slides/a.h5ad", "slides/b.h5ad"], "corpus")  # doctest: +SKIP
    >>> block = corpus.read(corpus.block_refs("train")[0])  # doctest: +SKIP
    """
    folder = Path(path)
    slides = list(slides)
    distances = _distances(positive_radius, distances)
    parameters = {
        "positive_radius": distances.positive,
        "block_cells": _at_least_one(block_cells, "block_cells"),
        "shard_blocks": _at_least_one(shard_blocks, "shard_blocks"),
        "split_key": split_key,
        "colocalization_key": colocalization_key,
        "min_colocalization": float(min_colocalization),
    }
    versions = {"spaf-data": version("spaf-data")}
    tables = [(slide, header) for slide in slides for header in read_headers(slide)]
    headers = [header for _, header in tables]
    named = [header.gene_names() for header in headers]
    union = join_genes(named)
    for sentence in check_same_genes(named, union, allow_other_genes=allow_other_genes):
        logger.warning("%s", sentence)
    for sentence in unclear_genes(named, union):
        logger.warning("%s: some of them may be the same genes", sentence)
    genes = union.genes
    parts = [np.unique(columns) for columns in union.columns]
    n_slides_of_gene = np.bincount(np.concatenate([np.empty(0, np.int32), *parts]))
    stems = _stems([header.name for header in headers])
    journal = _claim(folder, resume=resume, overwrite=overwrite)

    statistics = GeneStatistics.empty()
    records: dict[str, dict[str, Any]] = {}
    shards: list[Shard] = []
    for (slide, header), columns in zip(tables, union.columns, strict=True):
        table = read_slide(
            slide,
            header,
            columns,
            len(genes),
            split_key=split_key,
            colocalization_key=colocalization_key,
            min_colocalization=min_colocalization,
        )
        fingerprint = table.fingerprint()
        inputs = _hash([versions, parameters, genes, fingerprint])
        shards += _write_slide(table, folder, stems[header.name], parameters, journal, inputs)
        statistics = statistics.merge(GeneStatistics.of_slide(genes, _training_counts(table)))
        records[header.name] = {
            "context": header.context,
            "n_genes": len(np.unique(columns)),
            "measured": runs_of(columns),
            "n_genes_shared": int((n_slides_of_gene[np.unique(columns)] > 1).sum()),
            **_account_of_names(header, genes, columns),
            "n_gene_pairs": len(table.gene_pairs),
            "fingerprint": fingerprint,
        }
        logger.info("slide %s: %d cells", header.name, len(table.cell_ids))
    if not shards:
        raise InputError("no slide has a cell that is in a split: there is nothing to write.")
    journal.drop_shards(keep={shard.name for shard in shards})
    Manifest(
        parameters=parameters,
        distances=distances,
        versions=versions,
        genes=genes,
        gene_ids=union.gene_ids,
        gene_statistics=statistics.to_frame(),
        slides=records,
        shards=tuple(shards),
    ).write(folder)
    journal.close()
    return Corpus(folder)


def _write_slide(
    table: SlideTable, folder: Path, stem: str, parameters: dict[str, Any], journal: Journal, inputs: str
) -> list[Shard]:
    """Write the shards of one slide that are not complete yet; return all of them."""
    shard_blocks = parameters["shard_blocks"]
    layout = []  # for each split: its cells, their tiles, and the names of its shards
    for split in np.unique(table.split).tolist():
        if not is_safe_name(split) or len(split) > 20:
            raise InputError(f"slide {table.header.name} has a split {split!r}; use up to 20 letters, digits, - or _.")
        cells = np.flatnonzero(table.split == split)
        tiles = tile_cells(table.coordinates[cells], parameters["block_cells"])
        n_shards = math.ceil((int(tiles.max()) + 1) / shard_blocks)
        layout.append((split, cells, tiles, [f"{stem}-{split}-{number:05d}.tar" for number in range(n_shards)]))
    shards = {name: journal.find(name, inputs) for *_, names in layout for name in names}

    if any(shard is None for shard in shards.values()):
        pairs = positive_pairs(table.coordinates, parameters["positive_radius"]).astype(np.int32)
        _check_splits_apart(table, pairs, parameters["positive_radius"])
        for split, cells, tiles, names in layout:
            place = np.full(len(table.split), -1, np.int32)
            place[cells] = np.arange(len(cells), dtype=np.int32)
            blocks = blocks_of_cells(tiles, place[pairs[place[pairs[:, 0]] >= 0]])
            for number, name in enumerate(names):
                part = list(islice(blocks, shard_blocks))
                if shards[name] is None:
                    named = _blocks(table, cells, part, f"{stem}-{split}", number * shard_blocks)
                    shard = write_shard(folder / name, table.header.name, split, named)
                    journal.add(shard, inputs)
                    shards[name] = shard
    return [shard for shard in shards.values() if shard is not None]


def _training_counts(table: SlideTable) -> Iterator[sparse.csr_matrix]:
    """Yield the counts of the cells of the training split, some cells at a time."""
    cells = np.flatnonzero(table.split == keys.TRAIN)
    for start in range(0, len(cells), _CELLS_AT_A_TIME):
        yield table.counts[cells[start : start + _CELLS_AT_A_TIME]]


def _blocks(
    table: SlideTable, cells: npt.NDArray[np.int64], parts: Sequence[BlockCells], stem: str, first: int
) -> Iterator[Block]:
    for number, part in enumerate(parts, first):
        rows = cells[np.concatenate([part.owned, part.halo])]
        counts, colocalized = table.counts[rows], table.colocalized[rows]
        yield Block(
            key=f"{stem}-{number:07d}",
            slide=table.header.name,
            split=str(table.split[rows[0]]),
            n_owned=len(part.owned),
            cell_ids=table.cell_ids[rows],
            coordinates=table.coordinates[rows],
            indptr=counts.indptr.astype(np.int64),
            genes=counts.indices.astype(np.int32),
            counts=counts.data,
            colocalized_indptr=colocalized.indptr.astype(np.int64),
            colocalized=table.gene_pairs[colocalized.indices],
            positive_pairs=part.pairs,
        )


def _check_splits_apart(table: SlideTable, pairs: npt.NDArray[np.int32], radius: float) -> None:
    crossing = pairs[table.split[pairs[:, 0]] != table.split[pairs[:, 1]]]
    if len(crossing):
        left, right = crossing[0]
        raise InputError(
            f"slide {table.header.name}: {len(crossing)} pairs of cells within {radius:g} um are in two splits, "
            f"such as {table.cell_ids[left]} in {table.split[left]} and {table.cell_ids[right]} in "
            f"{table.split[right]}; put the cells between them into the split 'gap' (see split_regions)."
        )


def _account_of_names(header: SlideHeader, genes: Sequence[str], columns: npt.NDArray[np.int32]) -> dict[str, Any]:
    """Say how many genes of a slide the corpus calls by another name, and which of its columns became one gene."""
    names: dict[str, list[str]] = {}
    for name, column in zip(header.genes, columns.tolist(), strict=True):
        names.setdefault(genes[column], []).append(name)
    renamed = [(name, gene) for gene, found in names.items() for name in found if name != gene]
    added = {gene: found for gene, found in names.items() if len(found) > 1}
    if renamed:
        logger.info("slide %s: %d genes go by another name, such as %s: %s", header.name, len(renamed), *renamed[0])
    if added:
        logger.info("slide %s: counts of several columns are added up for %d genes", header.name, len(added))
    return {"n_genes_renamed": len(renamed), "genes_added_up": added}


def _stems(names: Sequence[str]) -> dict[str, str]:
    stems: dict[str, str] = {}
    for name in names:
        if name in stems:
            raise InputError(f"two slides are named {name!r}.")
        stems[name] = safe_name(name, stems.values())
    return stems


def _claim(folder: Path, *, resume: bool, overwrite: bool) -> Journal:
    """Make sure that the folder is ours to write to, and open its journal."""
    journal = Journal(folder)
    if (folder / NAME).exists():
        if not overwrite:
            raise InputError(f"{folder} holds a finished corpus already (overwrite=True replaces it).")
        old = Manifest.read(folder)
        # First, so that the folder is still known as ours if this is interrupted.
        journal.open()
        (folder / NAME).unlink()
        for shard in old.shards:
            (folder / shard.name).unlink(missing_ok=True)
    elif folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder.")
    elif folder.is_dir() and any(folder.iterdir()) and not journal.exists:
        raise InputError(f"{folder} is not empty and holds no corpus: choose another folder.")
    journal.open()
    if not resume:
        journal.drop_shards(keep=set())
    return journal


def _distances(positive_radius: float | None, distances: Distances | None) -> Distances:
    if distances is None:
        return Distances() if positive_radius is None else Distances(positive=positive_radius)
    if positive_radius not in (None, distances.positive):
        raise InputError(
            f"positive_radius is {positive_radius:g} um, but distances has a radius of {distances.positive:g} um: give "
            "one of them"
        )
    return distances


def _at_least_one(value: int, name: str) -> int:
    if not (isinstance(value, int | np.integer) and value >= 1):
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return int(value)


def _hash(contents: Any) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()

"""Bytes of a corpus per positive pair, against storing both cells in each pair, and the speed of reading it.

``python benchmarks/corpus_io.py SLIDE.h5ad [--copies 20]`` takes a slide table such as ``spaf-data build`` writes, lays
copies of its cells side by side so that there are many blocks, and writes them as a corpus. The peers hold the same
pairs with both cells copied into each: as plain 32-bit arrays, and in records of 256 pairs in the encoding of blocks,
with the pairs in the order of their cells (where the compression finds most of the copies again) and shuffled.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata as ad
import numpy as np
from _machine import describe, write_results

from spaf_data import Block, Corpus, encode_block, keys, write_corpus

PAIRS_IN_RECORD = 256


def side_by_side(slide: ad.AnnData, copies: int) -> ad.AnnData:
    """Return copies of a slide next to each other, all of them in the training split."""
    width = np.ptp(slide.obsm[keys.SPATIAL][:, 0]) + 10.0
    parts = []
    for number in range(copies):
        part = slide.copy()
        part.obsm[keys.SPATIAL] = slide.obsm[keys.SPATIAL] + [number * width, 0.0]
        part.obs_names = [f"{name}-{number}" for name in slide.obs_names]
        parts.append(part)
    joined = ad.concat(parts)
    joined.uns[keys.COLOCALIZATION] = slide.uns[keys.COLOCALIZATION]
    joined.obs[keys.SPLIT] = keys.TRAIN
    return joined


def rows_of(indptr: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the row pointers and the places of the entries of some rows of a CSR matrix."""
    lengths = np.diff(indptr)[cells]
    places = np.concatenate([np.arange(indptr[cell], indptr[cell + 1]) for cell in cells])
    return np.concatenate([[0], np.cumsum(lengths)]), places


def record_of_pairs(block: Block, pairs: np.ndarray) -> Block:
    """Return a record in which every pair brings both of its cells."""
    cells = pairs.reshape(-1)
    indptr, entries = rows_of(block.indptr, cells)
    colocalized_indptr, edges = rows_of(block.colocalized_indptr, cells)
    return Block(
        key=block.key,
        slide=block.slide,
        split=block.split,
        n_owned=len(cells),
        cell_ids=block.cell_ids[cells],
        coordinates=block.coordinates[cells],
        indptr=indptr,
        genes=block.genes[entries],
        counts=block.counts[entries],
        colocalized_indptr=colocalized_indptr,
        colocalized=block.colocalized[edges],
        positive_pairs=np.arange(len(cells), dtype=np.int32).reshape(-1, 2),
    )


def plain_bytes(block: Block) -> int:
    """Return the bytes of the cells of all pairs as 32-bit numbers: genes, counts, gene pairs and coordinates."""
    per_cell = 8 * np.diff(block.indptr) + 8 * np.diff(block.colocalized_indptr) + 8
    return int(per_cell[block.positive_pairs].sum())


def encoded_bytes_per_pair(blocks: list[Block], rng: np.random.Generator | None = None) -> float:
    """Return the bytes of a pair in records of pairs with both cells, in order or shuffled within a block."""
    n_bytes = n_pairs = 0
    for block in blocks:
        pairs = block.positive_pairs if rng is None else rng.permutation(block.positive_pairs)
        for start in range(0, len(pairs), PAIRS_IN_RECORD):
            n_bytes += len(encode_block(record_of_pairs(block, pairs[start : start + PAIRS_IN_RECORD])))
        n_pairs += len(pairs)
    return n_bytes / n_pairs


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--copies", type=int, default=20)
    arguments = parser.parse_args()
    slide = side_by_side(ad.read_h5ad(arguments.slide), arguments.copies)

    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        corpus = write_corpus([slide], Path(folder) / "corpus")
        writing = time.perf_counter() - start
        totals = corpus.manifest.totals()["all"]

        times = []
        for _ in range(5):
            start = time.perf_counter()
            blocks = [corpus.read(ref) for ref in Corpus(corpus.path).block_refs()]
            times.append(time.perf_counter() - start)
        reading = float(np.median(times))
        start = time.perf_counter()
        corpus.verify()
        verifying = time.perf_counter() - start

    pairs = totals["pairs"]
    plain = sum(map(plain_bytes, blocks)) / pairs
    ordered = encoded_bytes_per_pair(blocks[:5])
    shuffled = encoded_bytes_per_pair(blocks[:5], np.random.default_rng(0))
    ours = totals["bytes"] / pairs
    results = {
        "machine": describe("spaf-data", "numpy"),
        "n_cells": totals["cells"],
        "n_blocks": totals["blocks"],
        "n_pairs": pairs,
        "halo_share": sum(block.n_cells - block.n_owned for block in blocks) / totals["cells"],
        "genes_per_cell": slide.X.nnz / slide.n_obs,
        "gene_pairs_per_cell": slide.obsm[keys.COLOCALIZATION].nnz / slide.n_obs,
        "bytes_per_pair": ours,
        "bytes_per_cell": totals["bytes"] / totals["cells"],
        "bytes_per_pair_with_both_cells_plain": plain,
        "bytes_per_pair_with_both_cells_encoded": ordered,
        "bytes_per_pair_with_both_cells_encoded_shuffled": shuffled,
        "ratio_plain": plain / ours,
        "ratio_encoded": ordered / ours,
        "ratio_encoded_shuffled": shuffled / ours,
        # Each cell is in this many pairs, so that no encoding makes one of them more than this many times larger.
        "largest_ratio_of_one_encoding": 2 * pairs / totals["cells"],
        "write_seconds": writing,
        "read_and_decode_pairs_per_second": pairs / reading,
        "read_and_decode_cells_per_second": totals["cells"] / reading,
        "verify_seconds": verifying,
    }
    for name, value in results.items():
        print(f"{name:>48}: {value:,.4g}" if isinstance(value, int | float) else f"{name:>48}: {value}")
    write_results("corpus_io", results)


if __name__ == "__main__":
    main()

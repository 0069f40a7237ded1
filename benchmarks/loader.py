"""Cell pairs a second that the loader makes on one core, by objective, and the bytes of storage it reads for a pair.

``python benchmarks/loader.py CORPUS`` walks whole epochs of the training split of a corpus that ``spaf-data build``
wrote: reading and decoding blocks, drawing negatives, masking, targets and padding, everything between the files and
the network. Seconds are processor seconds of this process, which has one thread, so that a busy machine distorts them
less. The figure of a case is the median over its epochs. Thinning ranks the genes of every input anew.
"""

import argparse
import dataclasses
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from _machine import describe, write_results

from spaf_data import Corpus
from spaf_model import SpatialFormer, SpatialFormerConfig
from spaf_train import BatchStream, ObjectivesConfig, SamplingConfig, vocabulary_from_corpus
from spaf_train.objectives import ColocalizationConfig, MaskedGenesConfig, PairsConfig

AIM = 20_000  # pairs a second
TOKEN_BUDGET = 8192
CASES = {
    "none but the tokens": ((), 0.0),
    "masked genes": (("masked_genes",), 0.0),
    "co-localisation": (("colocalization",), 0.0),
    "pairs": (("pairs",), 0.0),
    "all": (("masked_genes", "colocalization", "pairs"), 0.0),
    "all, thinned": (("masked_genes", "colocalization", "pairs"), 0.3),
}


def objectives(enabled: tuple[str, ...]) -> ObjectivesConfig:
    """Return a configuration of the named objectives; with none of them, pair labels, which cost nothing."""
    return ObjectivesConfig(
        masked_genes=MaskedGenesConfig(enabled="masked_genes" in enabled),
        colocalization=ColocalizationConfig(enabled="colocalization" in enabled),
        pairs=PairsConfig(enabled="pairs" in enabled or not enabled),
    )


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus(arguments.corpus)
    vocabulary = vocabulary_from_corpus(corpus)
    refs = corpus.block_refs("train")
    blocks = [corpus.read(ref) for ref in refs]
    streams = {
        name: BatchStream(
            corpus,
            SpatialFormer(SpatialFormerConfig(width=8, n_layers=1, n_heads=1), vocabulary),
            SamplingConfig(token_budget=TOKEN_BUDGET, thinning=thinning),
            objectives(enabled),
            split="train",
            seed=0,
        )
        for name, (enabled, thinning) in CASES.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in CASES}
    n_pairs = {}
    for epoch in range(arguments.epochs):
        # In turns, so that what a busy machine does to caches and clock is done to all of them.
        for name, stream in streams.items():
            start = time.process_time()
            n_pairs[name] = sum(batch.unmasked.ids.shape[0] for batch in stream.one_epoch(epoch))
            rates[name].append(n_pairs[name] / (time.process_time() - start))
    # An epoch reads every block once; the shards hold nothing else but the headers of their members.
    n_bytes = sum(shard.n_bytes for shard in corpus.manifest.shards if shard.split == "train")
    results = {
        "machine": describe("spaf-train", "spaf-data", "torch", "numpy"),
        "load_average": os.getloadavg()[0],
        "sampling": dataclasses.asdict(streams["all"].sampling),
        "n_cells": sum(ref.n_owned for ref in refs),
        "n_blocks": len(refs),
        "genes_per_cell": float(np.mean(np.concatenate([np.diff(block.indptr) for block in blocks]))),
        "gene_pairs_per_cell": float(np.mean(np.concatenate([np.diff(b.colocalized_indptr) for b in blocks]))),
        "pairs_per_epoch": n_pairs["all"],
        "bytes_read_per_pair": n_bytes / n_pairs["all"],
        "pairs_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "slowest": {name: min(values) for name, values in rates.items()},
        "fastest": {name: max(values) for name, values in rates.items()},
        "aim": AIM,
    }
    for name in ("n_cells", "genes_per_cell", "gene_pairs_per_cell", "pairs_per_epoch", "bytes_read_per_pair"):
        print(f"{name:>24}: {results[name]:,.4g}")
    for name in CASES:
        spread = f"{min(rates[name]):,.0f} to {max(rates[name]):,.0f}"
        print(f"{name:>24}: {results['pairs_per_second'][name]:>10,.0f} pairs/s ({spread})")
    write_results("loader", results)


if __name__ == "__main__":
    main()

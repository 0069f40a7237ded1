"""What gene pairs and attention cost beside embedding, and how much of plain mean attention is distance in rank.

The published configuration (61 M parameters) with random weights embeds random cells of some 85 genes, predicts their
gene pairs, embeds pairs of cells and reads their attention, in turns; medians of three. The last figure is the
correlation, over gene pairs, of mean attention over all heads and layers with what ALiBi alone gives, from the same
sequences: with random weights there is nothing else to see::

    python benchmarks/gene_outputs_cost.py
"""

import statistics
import time
from collections.abc import Callable

import anndata
import numpy as np
import scipy.sparse as sp
import torch
from _machine import describe, write_results

from spaf_model import SpatialFormer, SpatialFormerConfig, Vocabulary

N_CELLS, N_PAIRS, N_GENES, N_ROUNDS = 48, 12, 300, 3
CONTEXT = dict.fromkeys(("tissue", "condition", "species", "assay"), "unknown")


def main() -> None:
    """Time all four in turns, print and write."""
    rng = np.random.default_rng(0)
    genes = [f"GENE{gene}" for gene in range(N_GENES)]
    counts = sp.csr_matrix((rng.random((N_CELLS, N_GENES)) < 85 / N_GENES) * rng.integers(1, 9, (N_CELLS, N_GENES)))
    adata = anndata.AnnData(counts.astype(np.float32))
    adata.var_names = genes
    model = SpatialFormer(
        SpatialFormerConfig(**(SpatialFormerConfig.published().as_dict() | {"n_tokens": None})),
        Vocabulary.build(genes, scale=np.ones(N_GENES)),
    )
    pairs = rng.integers(0, N_CELLS, (N_PAIRS, 2))
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "embed, cells/s": (N_CELLS, lambda: model.embed(adata, **CONTEXT)),
        "predict_colocalization, cells/s": (N_CELLS, lambda: model.predict_colocalization(adata, **CONTEXT)),
        "embed_pairs, pairs/s": (N_PAIRS, lambda: model.embed_pairs(adata, *pairs.T, **CONTEXT)),
        "attention, pairs/s": (N_PAIRS, lambda: model.attention(adata, pairs, **CONTEXT)),
    }
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(N_ROUNDS):
        for name, (n, call) in calls.items():
            started = time.perf_counter()
            call()
            rates[name].append(n / (time.perf_counter() - started))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    plain = model.attention(adata, pairs, minus_alibi=False, **CONTEXT)
    rest = model.attention(adata, pairs, **CONTEXT)
    weights, beyond = plain.weights["left_to_right"], rest.weights["left_to_right"]
    correlation = float(np.corrcoef(weights.data, weights.data - beyond.data)[0, 1])
    for name, rate in medians.items():
        print(f"{name:<34}{rate:>7.2f}")
    print(f"correlation of plain mean attention with ALiBi alone: {correlation:.4f}")
    write_results(
        "gene_outputs_cost",
        {
            "machine": describe("spaf-model", "torch", "numpy") | {"threads": torch.get_num_threads()},
            "n_parameters": model.n_parameters,
            "genes_per_cell": float(np.diff(counts.indptr).mean()),
            "medians": medians,
            "gene_pairs_found": int(adata.obsm["colocalization_pred"].nnz),
            "correlation_of_plain_attention_with_alibi_alone": correlation,
        },
    )


if __name__ == "__main__":
    main()

"""Tokens a second of whole training steps, of ours and of the published module, at the same sizes and batch.

``python benchmarks/training_step.py --peer PYTHON`` takes steps of 12 pairs of cells of 60 genes (131 tokens) in single
precision on two threads: masking, forward, the three losses, backward and AdamW, in turns with the published module,
which PYTHON (an interpreter with ``spatialformer==0.1.8`` and torch) runs. Both have the published sizes: 10 layers,
width 512, 6,065 tokens. ``--device cuda`` measures ours alone on a GPU, in bf16, and adds memory and the share of the
GPU's peak (``--peak-tflops``, from its data sheet) that 6 operations a weight and token amount to.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from _machine import describe, write_results

from spaf_model import RankedCells, SpatialFormer, SpatialFormerConfig, TokenBatch, Vocabulary
from spaf_train import Batch, ObjectivesConfig, OptimizerConfig, TrainingModule, make_optimizer
from spaf_train.objectives import PairLabels, colocalized_genes, mask_genes

N_TOKENS, AIM = 6065, 4.0
FACTORS = {"masked_genes": 1.0, "colocalization": 1.0, "pairs": 1.0}


def make_model() -> SpatialFormer:
    """Return the published sizes with random weights."""
    config = SpatialFormerConfig(**(SpatialFormerConfig.published().as_dict() | {"n_tokens": None}))
    spare = Vocabulary.build(["GENE"], scale=np.ones(1)).n_tokens - 1
    genes = [f"GENE{gene}" for gene in range(N_TOKENS - spare)]
    return SpatialFormer(config, Vocabulary.build(genes, scale=np.ones(len(genes))))


def make_cells(n_cells: int, n_genes: int, vocabulary: Vocabulary, rng: np.random.Generator):
    """Return ranked genes, contexts and co-localised gene pairs (a twentieth of all) of random cells."""
    tokens = np.stack([rng.choice(vocabulary.gene_token_ids, n_genes, replace=False) for _ in range(n_cells)])
    context = np.tile([vocabulary.context_id(kind, "unknown") for kind in vocabulary.context], (n_cells, 1))
    low, high = np.triu_indices(n_genes, 1)
    chosen = rng.random((n_cells, low.size)) < 0.05
    edges = np.concatenate([np.stack([row[low[c]], row[high[c]]], 1) for row, c in zip(tokens, chosen, strict=True)])
    edge_indptr = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))])
    ranked = RankedCells(np.arange(n_cells + 1) * n_genes, tokens.reshape(-1))
    return ranked, context, edge_indptr, edges


def make_batch(cells, n_pairs: int, vocabulary: Vocabulary, generator: torch.Generator) -> Batch:
    """Return a batch as the loader makes it: masks and targets of all objectives."""
    ranked, context, edge_indptr, edges = cells
    left, right = np.arange(n_pairs), np.arange(n_pairs, 2 * n_pairs)
    unmasked = TokenBatch.from_pairs(ranked, context, left, right, vocabulary)
    objectives = ObjectivesConfig()
    masked, masked_genes = mask_genes(unmasked, vocabulary, objectives.masked_genes, generator)
    edge_targets = colocalized_genes(unmasked, np.stack([left, right], 1), edge_indptr, edges, vocabulary)
    labels = PairLabels((torch.arange(n_pairs) % 3 == 0).long(), 2.0)
    targets = {"masked_genes": masked_genes, "colocalization": edge_targets, "pairs": labels}
    return Batch("random cells", 0, unmasked, masked, targets)


def our_steps(model: SpatialFormer, arguments: argparse.Namespace, n_steps: int) -> list[float]:
    """Return the seconds of some steps, the making of masks and targets included."""
    device = torch.device(arguments.device)
    model.to(device)
    module = TrainingModule(model.network, ObjectivesConfig()).train()
    optimizer = make_optimizer(module, OptimizerConfig())
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    seconds = []
    for _ in range(n_steps):
        cells = make_cells(2 * arguments.pairs, arguments.genes, model.vocabulary, rng)
        start = time.perf_counter()
        batch = make_batch(cells, arguments.pairs, model.vocabulary, generator)
        weights = batch.weights()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            total, _ = module(batch.to(device), weights, FACTORS, 1.0)
        total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


def peer_steps(arguments: argparse.Namespace, n_steps: int) -> dict:
    """Return the seconds and losses of steps of the published module, and its torch."""
    script = Path(__file__).with_name("_published_training.py")
    command = [arguments.peer, script, arguments.pairs, arguments.genes, n_steps]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure in turns, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="interpreter that has the published package")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--genes", type=int, default=60, help="genes of a cell")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a round")
    parser.add_argument(
        "--warm-up", type=int, default=3, help="steps before them: the first get their memory from the system"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peak-tflops", type=float, help="bf16 peak of the GPU, for its utilisation")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA device, and there is none")
    torch.set_num_threads(2)
    n_tokens = arguments.pairs * (2 * arguments.genes + 11)
    model = make_model()
    ours, peer, peer_torch = [], [], None
    for _ in range(arguments.rounds):
        ours += our_steps(model, arguments, arguments.warm_up + arguments.steps)[arguments.warm_up :]
        if arguments.peer:
            answer = peer_steps(arguments, arguments.warm_up + arguments.steps)
            peer += answer["seconds"][arguments.warm_up :]
            peer_torch = answer["torch"]
    results = {
        "machine": describe("spaf-train", "spaf-model", "torch"),
        "load_average": os.getloadavg()[0],
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "pairs": arguments.pairs,
        "tokens_of_a_pair": 2 * arguments.genes + 11,
        "n_parameters": model.n_parameters,
        "step_seconds": ours,
        "tokens_per_second": n_tokens / statistics.median(ours),
    }
    if peer:
        results["published_torch"] = peer_torch
        results["published_step_seconds"] = peer
        results["published_tokens_per_second"] = n_tokens / statistics.median(peer)
        results["ratio"] = statistics.median(peer) / statistics.median(ours)
        results["ratio_of_fastest"] = min(peer) / min(ours)
        results["aim"] = AIM
    if arguments.device == "cuda":
        results["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
        if arguments.peak_tflops:
            operations = 6 * model.n_parameters * results["tokens_per_second"]
            results["utilisation"] = operations / (arguments.peak_tflops * 1e12)
    for name, value in results.items():
        print(f"{name:>28}: {value:,.4g}" if isinstance(value, int | float) else f"{name:>28}: {value}")
    write_results("training_step" if arguments.device == "cpu" else "training_step_gpu", results)


if __name__ == "__main__":
    main()

"""Which small shapes never come back in bf16 on this processor, tried one by one in processes that can be killed.

``python benchmarks/bf16_shapes.py`` runs, under bf16 autocast on the CPU:

- ``convolution``: torch's own depthwise convolution in bf16, which SpaF does not use, to know the boundary;
- ``single``: the same convolution in single precision, which it uses;
- ``embedding`` and ``training``: a small SpatialFormer, encoded for inference, and with a backward pass.

The shapes are 1 to 8 cells, lengths of 1 to 200, widths of 16 to 512, on one thread and on two. A shape that takes
longer than the limit is counted as never returning: its process is killed and the next begins behind it.
"""

import argparse
import itertools
import json
import queue
import subprocess
import sys
import threading

from _machine import describe, write_results

CELLS = (1, 2, 3, 4, 6, 8)
LENGTHS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 66, 70, 96, 100, 127, 128, 129, 130, 160, 199, 200)
WIDTHS = (16, 32, 48, 64, 96, 128, 256, 512)
TAPS = 17
N_GENES = 400
NETWORK = {"convolution": False, "single": False, "embedding": True, "training": True}


def shapes(kind: str) -> list[tuple[int, int, int]]:
    """Return the shapes (cells, length, width) to try; a network has two layers, so it takes fewer."""
    if NETWORK[kind]:
        lengths, cells = [length for length in LENGTHS if length >= 8], (1, 2, 8)
        return list(itertools.product(cells, lengths, [width for width in WIDTHS if width <= 256]))
    return list(itertools.product(CELLS, LENGTHS, WIDTHS))


def convolve(precision: str, n_cells: int, length: int, width: int) -> None:
    """Convolve once, as an image of height 1."""
    import torch
    import torch.nn.functional as F

    dtype = torch.bfloat16 if precision == "convolution" else torch.float32
    x = torch.randn(n_cells, length, width, dtype=dtype)
    taps = torch.randn(width, 1, 1, TAPS, dtype=dtype)
    F.conv2d(
        x.transpose(1, 2).unsqueeze(2), taps, torch.zeros(width, dtype=dtype), padding=(0, TAPS // 2), groups=width
    )


def run_network(kind: str, n_cells: int, length: int, width: int) -> None:
    """Encode a batch of cells of one length, or train on it."""
    import numpy as np
    import torch

    from spaf_model import CONTEXT_KINDS, RankedCells, SpatialFormer, SpatialFormerConfig, TokenBatch, Vocabulary
    from spaf_model.spatialformer import InferenceEncoder

    words = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}
    genes = [f"G{gene}" for gene in range(N_GENES)]
    vocabulary = Vocabulary.build(genes, scale=np.ones(N_GENES), **{kind: [word] for kind, word in words.items()})
    config = SpatialFormerConfig(width=width, n_layers=1, n_heads=width // 8, conv_kernel=TAPS)
    network = SpatialFormer(config, vocabulary, seed=0).network
    # The first cell has the length asked for, the others a few genes fewer, so that there is padding.
    n_genes = np.maximum(length - 2 - len(CONTEXT_KINDS) - np.arange(n_cells), 1)
    tokens = np.concatenate([vocabulary.gene_token_ids[:n] for n in n_genes])
    ranked = RankedCells(indptr=np.concatenate([[0], np.cumsum(n_genes)]), tokens=tokens)
    context = np.tile([vocabulary.context_id(kind, words[kind]) for kind in CONTEXT_KINDS], (n_cells, 1))
    batch = TokenBatch.from_cells(ranked, context, np.arange(n_cells), vocabulary)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if kind == "embedding":
            network.eval()
            InferenceEncoder(network).encode(batch)
        else:
            hidden = network.train().encode(batch)
            loss = network.pair_logits(hidden).square().sum() + network.masked_gene_logits(hidden).square().mean()
            loss.backward()


def work(kind: str, threads: int, start: int) -> None:
    """Run the shapes from one on, saying of each that it is done."""
    import torch

    torch.set_num_threads(threads)
    todo = shapes(kind)
    print("ready", flush=True)
    for number in range(start, len(todo)):
        (run_network if NETWORK[kind] else convolve)(kind, *todo[number])
        print(number, flush=True)


def scan(kind: str, threads: int, limit: float) -> list[tuple[int, int, int]]:
    """Return the shapes that do not come back."""
    todo, start, stuck = shapes(kind), 0, []
    while start < len(todo):
        command = [sys.executable, __file__, "--worker", kind, str(threads), str(start)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said: queue.Queue[str] = queue.Queue()
        assert process.stdout is not None
        reader = threading.Thread(target=lambda out=process.stdout, into=said: [into.put(line) for line in out])
        reader.start()
        said.get(timeout=120)  # ready: imports are not on the clock
        try:
            while start < len(todo):
                start = int(said.get(timeout=limit)) + 1
        except queue.Empty:
            if process.poll() is not None:
                raise RuntimeError(f"{kind} failed at {todo[start]}: {process.stderr.read()}") from None
            stuck.append(todo[start])
            print(f"{kind}, {threads} threads: {todo[start]} does not come back", flush=True)
            start += 1
        process.kill()
        process.wait()
        reader.join()
    return stuck


def main() -> None:
    """Scan, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=10.0, help="Seconds that one shape may take.")
    parser.add_argument("--kinds", default=",".join(NETWORK), help="What to scan.")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        kind, threads, start = arguments.worker
        work(kind, int(threads), int(start))
        return
    import torch

    results = {
        "machine": describe("torch"),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "limit_s": arguments.limit,
    }
    results["bf16_units"] = bool(torch.cpu._is_avx512_bf16_supported())
    for kind in arguments.kinds.split(","):
        for threads in (1, 2):
            stuck = scan(kind, threads, arguments.limit)
            found = {"tried": len(shapes(kind)), "do_not_come_back": stuck}
            results[f"{kind}, {threads} threads"] = found
            print(json.dumps({"kind": kind, "threads": threads, "tried": found["tried"], "stuck": len(stuck)}))
    write_results("bf16_shapes", results)


if __name__ == "__main__":
    main()

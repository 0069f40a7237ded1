"""Seconds of training steps of the published module; run by training_step.py in an environment of its own.

``python _published_training.py N_PAIRS N_GENES N_STEPS`` prints them as JSON. A step is the module's own
``training_step`` (masking, forward, three losses, as Lightning calls it), backward and its AdamW. Only what needs a
GPU, a logger or a trainer is left out: the synchronisation of CUDA, `log`, and the schedule of one weight, which is 1.
"""

import json
import pickle
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import spatialformer
import torch
from spatialformer.tools import get_embeddings as published

PACKAGE = Path(spatialformer.__file__).parent
CONTEXT = [25, 11, 3, 6]  # Healthy, Breast, Human, Xenium
FIRST_GENE, SEP = 27, 1949


def make_model():
    """Return the module in its published sizes for pairs, with random weights."""
    n_tokens = len(json.loads((PACKAGE / "tokenizer" / "tokenv5.json").read_text()))
    config = json.loads((PACKAGE / "config" / "_config_train_large_pair.json").read_text())
    config.update(n_tokens=n_tokens - config["n_atokens"], input_type="pair", return_position_loss=False)
    with TemporaryDirectory() as folder:
        vectors = Path(folder) / "gene_vectors.pkl"
        vectors.write_bytes(pickle.dumps(torch.zeros(n_tokens, config["dim_model"])))
        config["embedding_path"] = str(vectors)
        model = published.manual_train_fm(config, use_flash_attn=False)
    model.input_type = "pair"
    model.log = lambda *arguments, **options: None
    model.linear_schedule_for_scale = lambda *arguments: 1.0
    return model.train()


def make_batch(n_pairs, n_genes, generator):
    """Return pairs of cells with different genes, a twentieth of the gene pairs co-localised."""
    first = 1 + len(CONTEXT)
    rows, adjacency = [], torch.zeros(n_pairs, 2 * (n_genes + first) + 1, 2 * (n_genes + first) + 1)
    for row in range(n_pairs):
        genes = FIRST_GENE + torch.randperm(SEP - FIRST_GENE, generator=generator)[: 2 * n_genes]
        rows.append([1, *CONTEXT, *genes[:n_genes].tolist(), SEP, *CONTEXT, *genes[n_genes:].tolist(), SEP])
        for start in (first, first + n_genes + 1 + len(CONTEXT)):
            upper = torch.triu(torch.rand(n_genes, n_genes, generator=generator) < 0.05, 1).float()
            adjacency[row, start : start + n_genes, start : start + n_genes] = upper + upper.T
    lengths = [first + n_genes + 1, len(CONTEXT) + n_genes + 1]
    return {
        "indices": torch.tensor(rows),
        "attention_mask": torch.ones(n_pairs, sum(lengths), dtype=torch.bool),
        "token_type_ids": torch.tensor([[1] * lengths[0] + [2] * lengths[1]]).repeat(n_pairs, 1),
        "sequence_length": torch.tensor([lengths]).repeat(n_pairs, 1),
        "adjmtx": adjacency,
        "pair_label": torch.arange(n_pairs) % 3 == 0,
    }


def main():
    """Time steps and print."""
    n_pairs, n_genes, n_steps = map(int, sys.argv[1:])
    torch.set_num_threads(2)
    torch.cuda.synchronize = lambda *arguments: None
    generator = torch.Generator().manual_seed(0)
    model = make_model()
    (optimizer,), _ = model.configure_optimizers()
    seconds, losses = [], []
    for step in range(n_steps):
        batch = make_batch(n_pairs, n_genes, generator)
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = model.training_step(batch, step)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss.detach()))
    sys.stdout.write("\n" + json.dumps({"seconds": seconds, "losses": losses, "torch": torch.__version__}) + "\n")


if __name__ == "__main__":
    main()

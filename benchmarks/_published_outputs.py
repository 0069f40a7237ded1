"""Checkpoints of the published package with random weights, and what it computes with them.

Runs under an interpreter that has ``spatialformer==0.1.8`` and torch, and nothing of SpaF; `published_parity.py` starts
it. ``python _published_outputs.py CELLS.h5ad FOLDER`` writes, for each version and attention class, a checkpoint saved
by Lightning and the outputs on the cells of the file.
"""

import ast
import json
import pickle
import sys
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import pytorch_lightning
import spatialformer
import torch
from spatialformer.tools import get_embeddings as published
from torch import nn

PACKAGE = Path(spatialformer.__file__).parent
TOKENS = {"v1": "tokenv4.json", "v2": "tokenv5.json"}
BATCH = 4


def flash_stand_in(q, k, v, *, cu_seqlens_q, alibi_slopes, **ignored):
    """Compute what the flash kernel computes: scores over sqrt(dim) minus slope times distance, in each sequence."""
    out = torch.empty_like(q)
    ends = cu_seqlens_q.tolist()
    for row, (start, stop) in enumerate(zip(ends[:-1], ends[1:])):  # noqa: B905, RUF007
        positions = torch.arange(stop - start)
        bias = -alibi_slopes[row][:, None, None] * (positions[:, None] - positions).abs()
        scores = torch.einsum("ihk,jhk->hij", q[start:stop], k[start:stop]) * q.shape[-1] ** -0.5
        out[start:stop] = torch.einsum("hij,jhk->ihk", (scores + bias).softmax(-1), v[start:stop])
    return out


def dense_projector(width):
    """Return the co-localisation head of v1, from the module of the wheel that still has it.

    That module cannot be imported, because it imports others that are not there; the class alone can be used.
    """
    tree = ast.parse((PACKAGE / "model" / "Spaformer.py").read_text())
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "AdjacencyProjector")
    scope = {"nn": nn, "torch": torch}
    exec(compile(ast.Module([node], []), "Spaformer.py", "exec"), scope)  # noqa: S102

    class Blocks(scope["AdjacencyProjector"]):
        """The same scores, handed over as the model of the wheel expects them."""

        def forward(self, hidden, lengths):
            scores = super().forward(hidden)
            rows = list(enumerate(lengths.tolist()))
            return {
                "block1_list": [scores[row, :first, :first] for row, (first, _) in rows],
                "block2_list": [
                    scores[row, first : first + second, first : first + second] for row, (first, second) in rows
                ],
                "seq_lengths": lengths,
                "batch_size": len(rows),
            }

    return Blocks(width)


def randomise(model, generator):
    """Give every tensor, statistics and scales included, values of its own."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(noise.abs() + 0.5)
            elif tensor.ndim < 2:
                tensor.copy_(0.2 * noise + (1.0 if name.endswith(("weight", "scale")) else 0.0))
            else:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)


def make_model(generation, flash, folder, seed):
    """Return the published network with random weights, and save it as Lightning does."""
    n_tokens = len(json.loads((PACKAGE / "tokenizer" / TOKENS[generation]).read_text()))
    config = json.loads((PACKAGE / "config" / "_config_train_large_pair.json").read_text())
    gene_vectors = folder / "gene_vectors.pkl"
    gene_vectors.write_bytes(pickle.dumps(torch.zeros(n_tokens, config["dim_model"])))
    config.update(n_tokens=n_tokens - config["n_atokens"], embedding_path=str(gene_vectors))
    model = published.manual_train_fm(config, use_flash_attn=flash)
    if generation == "v1":
        model.adjprojector = dense_projector(config["dim_model"])
    randomise(model, torch.Generator().manual_seed(seed))
    model.eval()
    trainer = pytorch_lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "model.ckpt", weights_only=True)
    return model


def batches(dataset):
    """Yield the padded batches of a data set of the published package."""
    for start in range(0, len(dataset), BATCH):
        yield published.collate_fn([dataset[row] for row in range(start, min(start + BATCH, len(dataset)))])


@torch.no_grad()
def outputs(model, adata, generation):
    """Return embeddings, probabilities, co-localisation logits and tokens, of cells and of pairs in both orders."""
    context = {name: str(adata.obs[name].iloc[0]) for name in ("tissue", "condition", "assay")}
    options = {**context, "gene_median_path": str(PACKAGE / "data" / "gene_median.pkl")}
    token_file = str(PACKAGE / "tokenizer" / TOKENS[generation])
    out = {}
    parts = {"cls": [], "gene": []}
    model.input_type = "single"
    tokenizer = published.GeneTokenizer(token_file, mode="single", **options)
    n_rows = 0
    for batch in batches(published.GeneExpressionDataset(adata, tokenizer, None)):
        hidden, blocks = model.get_embeddings(batch, layers=[-1], co_prediction=True)
        parts["cls"].append(hidden[0][:, 0].numpy())
        parts["gene"].append(published.valid_mean_embedding(batch["attention_mask"].numpy(), hidden[0].numpy()))
        for row, length in enumerate(batch["sequence_length"][:, 0].tolist()):
            out[f"tokens_{n_rows}"] = batch["indices"][row, :length].numpy()
            out[f"colocalization_{n_rows}"] = blocks[row][0].numpy()
            n_rows += 1
    out.update({f"single_{name}": np.concatenate(arrays) for name, arrays in parts.items()})
    model.input_type = "pair"
    tokenizer = published.GeneTokenizer(token_file, mode="pair", **options)
    names = list(adata.obs_names)
    half = len(names) // 2
    for order, left, right in (("forward", names[:half], names[half:]), ("reverse", names[half:], names[:half])):
        n_rows = 0
        hiddens, probabilities = [], []
        for batch in batches(published.GeneExpressionPairDataset(adata, left, right, None, tokenizer, None)):
            hidden, probability = model.get_embeddings(batch, layers=[-1], pair_prediction=True)
            hiddens.append(hidden[0][:, 0].numpy())
            probabilities.append(probability[:, 1].numpy())
            _, blocks = model.get_embeddings(batch, layers=[-1], co_prediction=True)
            for row, lengths in enumerate(batch["sequence_length"].tolist()):
                out[f"{order}_tokens_{n_rows}"] = batch["indices"][row, : sum(lengths)].numpy()
                out[f"{order}_colocalization_{n_rows}_1"] = blocks[row][0].numpy()
                out[f"{order}_colocalization_{n_rows}_2"] = blocks[row][1].numpy()
                n_rows += 1
        out[f"{order}_cls"] = np.concatenate(hiddens)
        out[f"{order}_neighbours"] = np.concatenate(probabilities)
    return out


def main():
    """Write one folder for each version and attention class."""
    cells, folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(2)
    # The attention class looks its kernel up in the module that it was imported from.
    sys.modules["modules"].flash_attn_varlen_func = flash_stand_in
    adata = anndata.read_h5ad(cells)
    for seed, (generation, flash) in enumerate([(g, f) for g in TOKENS for f in (False, True)]):
        case = folder / f"{generation}_{'flash' if flash else 'explicit'}"
        case.mkdir()
        model = make_model(generation, flash, case, seed)
        np.savez(case / "outputs.npz", **outputs(model, adata, generation))
    versions = {name: version(name) for name in ("spatialformer", "torch", "numpy", "pytorch_lightning")}
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()

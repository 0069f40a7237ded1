"""The published package at work, for comparison: embeds when told to, and says how long it took.

Runs under an interpreter that has ``spatialformer==0.1.8`` and torch, and nothing of SpaF. With the argument ``FOLDER``
it writes ``FOLDER/model.ckpt`` with random weights. Then each line of its standard input is a JSON object, answered by
one: ``embed`` embeds the cells of a file by the function behind its ``embed_data``, without reading the model again,
and ``tokenise`` makes their tokens.
"""

import json
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import torch
from _published_outputs import PACKAGE, TOKENS, make_model, published

CONTEXT = {"tissue": "Breast", "condition": "Disease"}
TOKEN_FILE = str(PACKAGE / "tokenizer" / TOKENS["v2"])
MEDIANS = str(PACKAGE / "data" / "gene_median.pkl")


def embed(model, adata, batch_size):
    """Embed by CLS."""
    published._process_single_mode(
        adata,
        model,
        TOKEN_FILE,
        **CONTEXT,
        method="cls",
        batch_size=batch_size,
        num_workers=1,  # it cannot do without
        threshold=0.8,
        reveal_name_flag=False,
        gene_median_path=MEDIANS,
        max_len=None,
    )
    return adata.obsm["X_SpaF"]


def tokenise(adata):
    """Make the tokens of each cell, as its data set does when a worker asks for them."""
    tokenizer = published.GeneTokenizer(TOKEN_FILE, mode="single", **CONTEXT, assay="Xenium", gene_median_path=MEDIANS)
    dataset = published.GeneExpressionDataset(adata, tokenizer, None)
    return [dataset[row] for row in range(len(dataset))]


def main():
    """Answer until the input ends."""
    folder = Path(sys.argv[1])
    # Everything else that the package prints must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(int(sys.argv[2]))
    model = make_model("v2", False, folder, 0)
    model.input_type = "single"
    print(json.dumps({"torch": torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        adata = anndata.read_h5ad(task["cells"])
        wall, cpu = time.perf_counter(), time.process_time()
        if task["do"] == "embed":
            result = embed(model, adata, task["batch_size"])
        else:
            tokenise(adata)
        answer = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        if task["do"] == "embed":
            np.save(task["output"], result)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

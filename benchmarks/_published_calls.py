"""What the published `embed_data` returns to the calls of its README.

Runs under an interpreter that has ``spatialformer==0.1.8`` and torch, and nothing of SpaF; `embed_data_parity.py`
starts it. ``python _published_calls.py CELLS.h5ad FOLDER`` writes a checkpoint and the results to the folder.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import torch
from _published_outputs import make_model
from spatialformer import tl


def main():
    """Make a checkpoint, call, and write what came back."""
    cells, folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(2)
    make_model("v2", False, folder, 0)
    adata = anndata.read_h5ad(cells)
    names = list(adata.obs_names)
    half = len(names) // 2
    call = {
        "tissue": "Breast",
        "condition": "Disease",
        "assay": "Xenium",
        "method": "cls",
        "model_ckp_path": str(folder / "model.ckpt"),
        "batch_size": 4,
        "num_workers": 1,  # none is refused there
    }
    single = tl.embed_data(adata=adata, mode="single", threshold=0.9, reveal_name=True, **call)
    pairs = {"mode": "pair", "left_cell": names[:half], "right_cell": names[half:]}
    embeddings, probabilities = tl.embed_data(adata=adata, **pairs, **call)
    np.savez(
        folder / "results.npz",
        single=single.obsm["X_SpaF"],
        embeddings=embeddings,
        probabilities=torch.cat(probabilities).numpy(),
        batches=[len(part) for part in probabilities],
    )
    (folder / "gene_pairs.json").write_text(json.dumps(list(single.obs["Gene_Pairs"])))
    versions = {name: version(name) for name in ("spatialformer", "torch", "numpy", "pytorch_lightning")}
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()

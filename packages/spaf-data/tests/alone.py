"""The smallest real job of spaf-data in an environment that holds nothing else: a bundle becomes a verified corpus."""

import importlib.util
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata

import spaf_data

for name in ("torch", "spatialdata", "spaf_model", "spaf_train", "spaf_analysis"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed, so this proves nothing"

with TemporaryDirectory() as folder:
    bundle, out = Path(folder, "bundle"), Path(folder, "out")
    spaf_data.simulate_bundle(bundle, n_cells=400, n_genes=40, seed=0)
    subprocess.run(["spaf-data", "build", str(bundle), "--out", str(out), "--slide", "s"], check=True)
    adata = anndata.read_h5ad(out / "slides" / "s.h5ad")
    corpus = spaf_data.Corpus(out / "corpus")
    corpus.verify()
    owned = sum(ref.n_owned for ref in corpus.block_refs())
    assert owned == (adata.obs["split"] != "gap").sum() > 0, "cells were lost between the slide and the corpus"
print(f"spaf-data alone: {adata.n_obs} cells x {adata.n_vars} genes, {owned} of them in the corpus")

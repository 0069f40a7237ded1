"""The smallest real job of spaf-model in an environment that holds nothing else of ours: save, load, embed."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata
import numpy as np
import scipy.sparse as sp

from spaf_model import SpatialFormer, SpatialFormerConfig, Vocabulary, load_model, shipped_models

for name in ("spaf_data", "spaf_train", "spaf_analysis", "numba", "webdataset", "spatialdata", "pyarrow", "flash_attn"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed, so this proves nothing"

genes = [f"GENE{i}" for i in range(50)]
counts = sp.csr_matrix(np.random.default_rng(0).poisson(0.8, (20, 50)).astype(np.int32))
vocabulary = Vocabulary.build(genes, scale=np.ones(50), species=["Human"], assay=["Xenium"], tissue=["Breast"])
config = SpatialFormerConfig(n_tokens=vocabulary.n_tokens, width=32, n_layers=2, n_heads=2)

with TemporaryDirectory() as folder:
    model_dir, slide, embedded = Path(folder, "model"), Path(folder, "slide.h5ad"), Path(folder, "embedded.h5ad")
    model = SpatialFormer(config, vocabulary, seed=0)
    model.save_pretrained(model_dir)
    adata = anndata.AnnData(counts)
    adata.var_names = genes
    adata.write_h5ad(slide)
    context = ("--tissue", "Breast", "--condition", "unknown", "--species", "Human", "--assay", "Xenium")
    command = ["spaf-model", "embed", str(slide), "--model", str(model_dir), *context, "-o", str(embedded)]
    subprocess.run(command, check=True)
    model.embed(adata, tissue="Breast", condition="unknown", species="Human", assay="Xenium")
    written = anndata.read_h5ad(embedded).obsm["X_SpaF"]
np.testing.assert_allclose(written, adata.obsm["X_SpaF"], atol=1e-5)
for name in shipped_models():  # they are in the wheel, and read
    assert load_model(name).card.startswith(f"# {name}\n")
assert {"starter", "starter-1"} <= set(shipped_models())
sys.stdout.write(f"spaf-model alone: {written.shape[0]} cells embedded in {written.shape[1]} dimensions, twice.\n")

"""The smallest real job of spaf-train with only what it declares: a corpus becomes a model directory."""

import importlib.util
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import spaf_data
from spaf_model import SpatialFormer

for name in ("spaf_analysis", "scanpy", "matplotlib", "spatialdata", "lightning", "wandb"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed, so this proves nothing"

with TemporaryDirectory() as folder:
    bundle, build, run = Path(folder, "bundle"), Path(folder, "build"), Path(folder, "run")
    spaf_data.simulate_bundle(bundle, n_cells=300, n_genes=30, seed=0)
    subprocess.run(["spaf-data", "build", str(bundle), "--out", str(build)], check=True)
    few_steps = ("--set", "run.steps=4", "--set", "run.validate_every=2")
    train = ["spaf-train", "pretrain", "small", "--data", str(build / "corpus"), "--out", str(run), *few_steps]
    subprocess.run(train, check=True)
    model = SpatialFormer.from_pretrained(run / "model")
print(f"spaf-train alone: a model with {model.vocabulary.n_tokens} tokens after four steps")

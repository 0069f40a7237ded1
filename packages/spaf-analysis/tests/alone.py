"""The smallest real job of spaf-analysis with only what it declares: from a folder to a report, in one command."""

import importlib.util
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import spaf_data

for name in ("spatialdata", "squidpy", "scvi", "lightning"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed, so this proves nothing"

with TemporaryDirectory() as folder:
    bundle, out = Path(folder, "bundle"), Path(folder, "out")
    spaf_data.simulate_bundle(bundle, n_cells=300, n_genes=30, seed=0)
    few_steps = ("--config", "small", "--set", "run.steps=4", "--set", "run.validate_every=2")
    subprocess.run(["spaf-analysis", "run", str(bundle), "-o", str(out), *few_steps], check=True)
    summary = json.loads((out / "summary.json").read_text())
    assert (out / "report.html").stat().st_size > 0
print(f"spaf-analysis alone: a report on {summary['n_cells']} cells")

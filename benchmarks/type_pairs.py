"""Types around types: false alarms with donors drawn at random, and time by the number of cells.

    python benchmarks/type_pairs.py [--sets 400] [--cells 250000] [--types 16] [--images 120] [--write]

Each set has 12 donors of 2 images of 300 cells of 4 types. For sign flips labels lie at random. For permutations
every donor has its own clustering of types (which no condition explains), and six donors drawn at random are one
condition. Counted are p-values of at most .05 among pairs of types, and sets in which any adjusted p is.

The time is that of counting, expectations and the comparison of two conditions, of cells some 12 um apart with a radius
of 30 um; without reading. It runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _machine import describe, time_of, write_results
from scipy import sparse

from spaf_analysis import tl
from spaf_analysis.donors import compare_conditions, compare_with_zero
from spaf_analysis.type_pairs import count_types_around, of_donors

_DONORS, _IMAGES, _CELLS, _TYPES, _SIDE = 12, 2, 300, 4, 500.0


def donors_of(rng: np.random.Generator, *, clustered: bool) -> Any:
    """Simulate one set and return the excess of each donor."""
    xy, code, image = [], [], []
    for donor in range(_DONORS):
        strength = rng.random() if clustered else 0.0
        for index in range(_IMAGES):
            kind = rng.integers(_TYPES, size=_CELLS)
            centres = rng.random((_TYPES, 4, 2)) * _SIDE
            near = centres[kind, rng.integers(4, size=_CELLS)] + rng.normal(0, 40, (_CELLS, 2))
            here = rng.random((_CELLS, 1)) < strength
            xy.append(np.where(here, near, rng.random((_CELLS, 2)) * _SIDE))
            code.append(kind)
            image.append(np.full(_CELLS, donor * _IMAGES + index))
    counts = count_types_around(np.concatenate(xy), np.concatenate(code), np.concatenate(image), _TYPES, radius=30.0)
    excess = of_donors(counts, np.repeat(np.arange(_DONORS), _IMAGES), _DONORS)[0]
    return excess.reshape(_DONORS, -1)


def alarms(n_sets: int) -> dict[str, Any]:
    """Return shares of false alarms, with standard errors over the sets."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name in ("sign flips", "permutation"):
        pairs, families = [], []
        for index in range(n_sets):
            values = donors_of(rng, clustered=name == "permutation")
            if name == "permutation":
                test = compare_conditions(values, rng.permutation(_DONORS) < _DONORS // 2, seed=index)
            else:
                test = compare_with_zero(values, seed=index)
            pairs.append(np.nanmean(test.p <= 0.05))
            families.append(bool(np.nanmin(test.p_adjusted) <= 0.05))
        found[name] = {
            "share_of_pairs": float(np.mean(pairs)), "its_error": float(np.std(pairs) / np.sqrt(n_sets)),
            "share_of_families": float(np.mean(families)), "family_error": float(np.std(families) / np.sqrt(n_sets)),
        }  # fmt: skip
        print(f"{name}: {found[name]}", flush=True)
    return found


def measure(n_cells: int, n_types: int, n_images: int) -> dict[str, Any]:
    """Compare types of simulated cells in this process."""
    rng = np.random.default_rng(0)
    image = np.sort(rng.integers(n_images, size=n_cells))
    side = np.sqrt(n_cells / n_images * 150.0)
    donor = image // 4
    obs = pd.DataFrame(
        {
            "slide": pd.Categorical(image.astype(str)), "donor": pd.Categorical(donor.astype(str)),
            "type": pd.Categorical(rng.integers(n_types, size=n_cells).astype(str)),
            "condition": pd.Categorical(np.where(donor % 2 == 0, "a", "b")),
        },
        index=np.arange(n_cells).astype(str),
    )  # fmt: skip
    adata = anndata.AnnData(sparse.csr_matrix((n_cells, 1), dtype=np.float32), obs=obs)
    adata.obsm["spatial"] = rng.random((n_cells, 2)) * side
    taken = time_of(lambda: tl.type_pairs(adata, cell_type="type", donor="donor", condition="condition", radius=30.0))
    return {**taken, "neighbours_per_cell": float(np.pi * 30.0**2 / 150.0)}


def main() -> None:
    """Count alarms, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--cells", type=int, default=250_000)
    parser.add_argument("--types", type=int, default=16)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (arguments.cells, arguments.types, arguments.images)
    if arguments.measure:
        print(json.dumps(measure(*sizes)))
        return
    command = [sys.executable, __file__, "--measure", "--cells", str(sizes[0]), "--types", str(sizes[1])]
    answer = subprocess.run([*command, "--images", str(sizes[2])], check=True, capture_output=True, text=True)
    taken = json.loads(answer.stdout.splitlines()[-1])
    print(f"{sizes[0]} cells, {sizes[1]} types, {sizes[2]} images: {taken}", flush=True)
    found = {"false_alarms": alarms(arguments.sets), "n_sets": arguments.sets, "time": taken}
    if arguments.write:
        results = {"machine": describe("spaf-analysis", "numpy", "scipy"), "cells_types_images": sizes, **found}
        write_results("type_pairs", results)


if __name__ == "__main__":
    main()

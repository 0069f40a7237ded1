"""Sections of several patients integrated by what surrounds a spot: mixing that keeps regions, beside Harmony.

    python benchmarks/integrate_patients.py TABLE.h5ad:PATIENT:LABEL [--name HER2] [--write]

A table has counts in X and places in obsm["spatial"]; spots labelled "unlabelled", "undetermined" or without a label
are left out. The own-tissue model is fitted on all patients, each taken for a slide, and sees no label. Judged in one
call, over resampled tiles, are its embedding and the niche state of it (a spot with its neighbours', as
``spaf-analysis niches --inputs embedding`` has it), each as it is and after Harmony; beside them PCA and scaled PCA,
PCA averaged twice over 15 neighbours, and the niche state of counts alone, which need no model, as they are and after
Harmony. Averaging over neighbours alone keeps regions better, so the last two say what of the result is the model's.
NAME goes into the results, the path does not.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from _machine import describe, write_results
from scipy import sparse

_NO_LABEL = {"unlabelled", "undetermined", "nan", ""}
_SHOWN = ("nmi", "ari", "purity", "cilisi")
_AGAINST = ("PCA + Harmony", "scaled PCA + Harmony", "PCA averaged twice + Harmony", "niche state of counts + Harmony")


def embeddings_of(table: anndata.AnnData, patient: np.ndarray) -> dict[str, np.ndarray]:
    """Return every embedding as it is and after Harmony."""
    from spaf_analysis.integrate import baseline_embeddings, harmony
    from spaf_analysis.niches import baselines
    from spaf_analysis.niches.tool import state_of
    from spaf_model import TissueModel

    TissueModel.fit(table, "neighbours").embed(table)
    plain = baseline_embeddings(table.X)
    places, slide = np.asarray(table.obsm["spatial"])[:, :2], table.obs["slide"].to_numpy()
    found = {
        "embedding": np.asarray(table.obsm["X_SpaF"], dtype=np.float64),
        "niche state of the embedding": state_of(table, inputs="embedding")[0],
        "PCA": plain["PCA"],
        "scaled PCA": plain["scaled PCA"],
        "PCA averaged twice": baselines.averaged(plain["PCA"], places, slide),
        "niche state of counts": state_of(table, inputs="expression")[0],
    }
    rows: dict[str, np.ndarray] = {}
    for name, values in found.items():
        rows |= {name: values, f"{name} + Harmony": harmony(values, patient)}
    return rows | {"random projection": plain["random projection"], "random numbers": plain["random numbers"]}


def judge(path: Path, column: str, label: str) -> dict[str, Any]:
    """Judge all of them in one call."""
    from spaf_analysis import judge_integration
    from spaf_analysis.metrics import spatial_tiles

    table = anndata.read_h5ad(path)
    table = table[~table.obs[label].astype(str).isin(_NO_LABEL).to_numpy()].copy()
    table.X = sparse.csr_matrix(table.X).astype(np.float32)
    table.obs["slide"] = table.obs[column].astype(str).to_numpy()
    patient = np.unique(table.obs["slide"], return_inverse=True)[1].ravel()
    code = np.unique(table.obs[label].astype(str), return_inverse=True)[1].ravel()
    tiles = spatial_tiles(np.asarray(table.obsm["spatial"])[:, :2], table.obs["slide"].to_numpy())
    started, used = time.perf_counter(), time.process_time()
    rows = embeddings_of(table, patient)
    found = judge_integration(rows, patient, code, tiles.code, against=_AGAINST, n_replicates=1_000)
    differences = found.differences
    ours = differences["method"].isin(["embedding", "embedding + Harmony"]) | differences["method"].str.startswith(
        "niche"
    )
    kept = differences[ours & differences["metric"].isin(_SHOWN)]
    columns = [f"{metric}{ending}" for metric in _SHOWN for ending in ("", "_low", "_high")]
    return {
        "n_spots": table.n_obs, "n_patients": int(patient.max()) + 1, "n_tiles": tiles.n,
        "scores": found.scores.set_index("method")[columns].round(4).to_dict(orient="index"),
        "differences": kept.round(4).to_dict(orient="records"),
        "seconds": time.perf_counter() - started, "core_seconds": time.process_time() - used,
    }  # fmt: skip


def main() -> None:
    """Judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", metavar="TABLE.h5ad:PATIENT:LABEL")
    parser.add_argument("--name", default="patients")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    path, column, label = arguments.table.rsplit(":", 2)
    found = judge(Path(path), column, label)
    print(f"{arguments.name}: {found['n_spots']} spots of {found['n_patients']} patients, {found['n_tiles']} tiles")
    print(f"  {'':<40}" + "".join(f"{metric:>26}" for metric in _SHOWN))
    for method, row in found["scores"].items():
        values = (f"{row[one]:.3f} ({row[f'{one}_low']:.3f} to {row[f'{one}_high']:.3f})" for one in _SHOWN)
        print(f"  {method:<40}" + "".join(f"{value:>26}" for value in values), flush=True)
    for row in found["differences"]:
        print(
            f"  {row['method']} minus {row['baseline']}, {row['metric']}: {row['difference']:+.3f} "
            f"({row['low']:+.3f} to {row['high']:+.3f}) {row['verdict']}"
        )
    if arguments.write:
        machine = describe("spaf-analysis", "spaf-model", "numpy", "scanpy", "harmonypy", "scikit-learn", "igraph")
        write_results("integrate_patients", {"machine": machine, arguments.name: found})


if __name__ == "__main__":
    main()

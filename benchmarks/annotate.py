"""Annotation by ``auto`` beside every fixed method: one piece of tissue, or one donor, is the query of all others.

    python benchmarks/annotate.py [NAME=TABLE.h5ad:LABEL[:DONOR] ..] [--tile 250] [--folds 5 10] [--write]

A table has counts in X. With DONOR, a column of obs, each donor in turn is the query and the others the reference;
without one, square tiles (``--tile``, in the unit of obsm["spatial"]) are dealt to folds and each fold in turn is the
query. Cells labelled "unlabelled", "undetermined", "Excluded" or without a label are left out. The own-tissue model is
fitted on the counts of the whole table, each donor taken for a slide, and never sees a label; methods, penalties and
the choice of ``auto`` are learnt in the reference alone. Judged are the predictions of all folds together: macro-F1
with intervals over resampled tiles of tissue, the difference to logistic regression on log counts on the same tiles.
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

_NO_LABEL = {"unlabelled", "undetermined", "Excluded", "nan", ""}


def divided(table: anndata.AnnData, donor: str | None, tile: float, n_folds: int) -> np.ndarray:
    """Return the fold of each cell."""
    if donor is not None:
        return np.unique(table.obs[donor].astype(str), return_inverse=True)[1].ravel()
    places = np.floor(np.asarray(table.obsm["spatial"])[:, :2] / tile).astype(int)
    code = np.unique(places, axis=0, return_inverse=True)[1].ravel()
    return np.random.default_rng(0).permutation(int(code.max()) + 1)[code] % n_folds


def judge(path: Path, label: str, donor: str | None, tile: float, n_folds: int) -> dict[str, Any]:
    """Annotate each fold by the others, by ``auto`` and by every method."""
    from spaf_analysis import tl
    from spaf_analysis.annotate import METHODS
    from spaf_analysis.metrics import spatial_tiles
    from spaf_model import TissueModel
    from spaf_train.evaluation import evaluate_predictions, prediction_differences

    table = anndata.read_h5ad(path)
    table = table[~table.obs[label].astype(str).isin(_NO_LABEL).to_numpy()].copy()
    table.X = sparse.csr_matrix(table.X).astype(np.float32)
    table.obs["slide"] = "one" if donor is None else table.obs[donor].astype(str).to_numpy()
    started, used = time.perf_counter(), time.process_time()
    TissueModel.fit(table, "neighbours").embed(table)
    names, code = np.unique(table.obs[label].astype(str), return_inverse=True)
    fold = divided(table, donor, tile, n_folds)
    # The largest probability decides, as it does with unknown=0; "auto" comes first, so that it is compared with all.
    predicted = {method: np.full(table.n_obs, -1) for method in ("auto", *METHODS)}
    chosen = []
    for one in np.unique(fold):
        query, reference = table[fold == one].copy(), table[fold != one].copy()
        for method, of_method in predicted.items():
            found = tl.annotate(
                query, reference, label, method=method, key="X_SpaF", donor=donor, unknown=0.0
            )  # fmt: skip
            place = np.searchsorted(names, found.classes)
            of_method[fold == one] = place[found.codes]
            if method == "auto":
                chosen.append(found.method)
    tiles = spatial_tiles(np.asarray(table.obsm["spatial"])[:, :2], table.obs["slide"].to_numpy())
    judged = (code, predicted, len(names), tiles)
    scores = evaluate_predictions(*judged, n_replicates=1_000, seed=0)
    differences = prediction_differences(*judged, n_replicates=1_000, seed=0)
    return {
        "n_cells": table.n_obs, "n_classes": len(names), "n_tiles": tiles.n, "chosen": chosen,
        "scores": scores.round(4).to_dict(orient="records"),
        "differences": differences.round(4).to_dict(orient="records"),
        "seconds": time.perf_counter() - started, "core_seconds": time.process_time() - used,
    }  # fmt: skip


def show(case: str, found: dict[str, Any]) -> None:
    """Print what was judged."""
    print(f"{case}: {found['n_cells']} cells, {found['n_classes']} classes; auto took {found['chosen']}")
    for row in found["scores"]:
        print(
            f"  {row['score']:<26}macro-F1 {row['macro_f1']:.3f} ({row['macro_f1_low']:.3f} to "
            f"{row['macro_f1_high']:.3f}), accuracy {row['accuracy']:.3f}",
            flush=True,
        )
    for row in found["differences"]:
        print(f"  auto minus {row['baseline']}: {row['macro_f1']:+.3f}, {row['verdict']}", flush=True)


def main() -> None:
    """Judge every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="NAME=TABLE.h5ad:LABEL[:DONOR]")
    parser.add_argument("--tile", type=float, default=250.0)
    parser.add_argument("--folds", type=int, nargs="+", default=[5], help="of tiles; without a donor")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for given in arguments.tables:
        name, _, place = given.partition("=")
        path, label, *donor = place.split(":")
        for n_folds in [0] if donor else arguments.folds:
            found = judge(Path(path), label, donor[0] if donor else None, arguments.tile, n_folds)
            case = f"{name}, each {donor[0]}" if donor else f"{name}, {n_folds} folds of tiles"
            results[case] = found
            show(case, found)
    if arguments.write:
        machine = describe("spaf-analysis", "spaf-model", "numpy", "scikit-learn")
        write_results("annotate", {"machine": machine, "tile": arguments.tile, "tables": results})


if __name__ == "__main__":
    main()

"""Fine-tuning by default, on tissue and cells that were held out, beside what needs no model.

    python benchmarks/finetuning.py NAME=CELLS.h5ad:LABEL[:GROUPS] .. [--folds thirds tiles groups] [--seeds 0 1]
        [--spatialformer] [--write]
    python benchmarks/finetuning.py --pairs MODEL --radius UM NAME=CELLS.h5ad[:SLIDE:HELD,HELD] .. [--write]
    python benchmarks/finetuning.py --pairs joint|separate --from CELLS.h5ad --radius UM NAME=CELLS.h5ad.. [--write]

A table has counts in X and labels in obs[LABEL]; cells with a label of fewer than 10 cells are left out. Every third of
a slide along its longer extent is held out in turn (thirds), or tiles of 250 um in five folds (tiles; places in um), or
the groups of obs[GROUPS], such as batches (groups). A gap of 30 um is kept around thirds. For each fold the own-tissue
model is fitted on the training cells alone, and `finetune_labels` is asked for its default, with the cells held out as
the part to be judged: whatever it chooses, it chooses on the training cells. Predictions of all folds are judged
together; differences have paired 95 % intervals over tiles of tissue, or over random groups of cells without a place.

With --spatialformer a small SpatialFormer is pre-trained on the training cells of the first fold instead, and
fine-tuned by a probe, by adapters and fully.

With --pairs a model is taught the neighbours (within a radius) of slides of another technology by `finetune_pairs`.
Those of obs[SLIDE] named HELD are held out and judged; of one slide the end of its longer extent, with a gap of two
radii. MODEL may also be the way in which a small SpatialFormer reads two cells, joint or separate, that is pre-trained
on the slide --from first.

NAME goes into the results, the path does not.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _machine import describe, write_results
from numpy.typing import NDArray
from scipy import sparse

from spaf_data import Distances, split_regions, write_corpus
from spaf_model import TissueModel
from spaf_train import EvaluationOptions, FinetuneConfig, finetune_labels, finetune_pairs, pretrain, read_config
from spaf_train.evaluation import Tiles, spatial_tiles
from spaf_train.evaluation.classification import evaluate_predictions, prediction_differences
from spaf_train.finetuning import FinetuneResult

_LEAST = 10  # cells of a label
_TILE, _GAP = 250.0, 30.0  # um
_N_TILE_FOLDS = 5
_REPLICATES = 1_000
_METHODS = ("probe", "lora", "full")
_PRETRAINING = 300  # steps


def folds_of(cells: anndata.AnnData, how: str, groups: str | None) -> Iterator[NDArray[np.str_]]:
    """Yield for each fold the part of each cell."""
    if how == "groups":
        assert groups is not None, "groups are named behind the label"
        names = cells.obs[groups].astype(str).to_numpy()
        for name in np.unique(names):
            yield np.where(names == name, "validation", "train")
        return
    places = np.asarray(cells.obsm["spatial"], dtype=np.float64)[:, :2]
    if how == "tiles":
        square = np.floor((places - places.min(axis=0)) / _TILE).astype(np.int64)
        tile = np.unique(square, axis=0, return_inverse=True)[1].ravel()
        fold = (np.random.default_rng(0).permutation(tile.max() + 1) % _N_TILE_FOLDS)[tile]
        for number in range(_N_TILE_FOLDS):
            yield np.where(fold == number, "validation", "train")
        return
    along = places[:, int(np.ptp(places, axis=0).argmax())]
    cuts = [-np.inf, *np.quantile(along, [1 / 3, 2 / 3]), np.inf]
    for low, high in itertools.pairwise(cuts):
        near = (along > low - _GAP) & (along <= high + _GAP)
        yield np.where((along > low) & (along <= high), "validation", np.where(near, "gap", "train"))


def labelled(path: Path, label: str) -> anndata.AnnData:
    """Read the cells that have counts and a label that is frequent enough."""
    cells = anndata.read_h5ad(path)
    names = cells.obs[label].astype(str)
    size = names.map(names.value_counts())
    kept = (np.asarray(cells.X.sum(axis=1)).ravel() > 0) & (size >= _LEAST) & ~names.isin(["nan", "Excluded"])
    cells = cells[kept.to_numpy()].copy()
    cells.X = sparse.csr_matrix(cells.X).astype(np.float32)
    cells.obs = cells.obs[cells.obs.columns.drop("split", errors="ignore")]
    return cells


def tuned(
    cells: anndata.AnnData, part: NDArray[np.str_], label: str, groups: str | None, seed: int, folder: Path
) -> FinetuneResult:  # fmt: skip
    """Fit the own-tissue model on the training cells, and fine-tune it by default."""
    cells = cells.copy()
    cells.obs["part"] = part
    if groups is not None:
        cells.obs["slide"] = cells.obs[groups].astype(str)
    TissueModel.fit(cells[part == "train"].copy(), seed=seed).save_pretrained(folder / "model")
    config = FinetuneConfig(seed=seed, threads=1, device="cpu")
    return finetune_labels(
        folder / "model", cells, label, folder / "tuned", config=config, split="part", min_cells=1, n_replicates=10,
        gap=0.0,
    )  # fmt: skip


def in_unknown_context(cells: anndata.AnnData) -> anndata.AnnData:
    """Return cells of which nothing is said but what they express."""
    return anndata.AnnData(
        cells.X, cells.obs.assign(**dict.fromkeys(("tissue", "condition", "species", "assay"), "unknown")), cells.var,
        obsm=dict(cells.obsm),
    )  # fmt: skip


def small_spatialformer(cells: anndata.AnnData, pair_input: str, seed: int, folder: Path) -> Path:
    """Pre-train a small SpatialFormer on a slide, and return where it is."""
    cells.obs = pd.DataFrame({"slide": "slide"}, index=cells.obs_names)
    cells = in_unknown_context(cells)
    cells.obs["split"] = split_regions(cells.obsm["spatial"], validation_fraction=0.15, gap=2 * Distances().positive)
    corpus = write_corpus([cells], folder / "corpus", colocalization_key=None)
    steps = [f"run.steps={_PRETRAINING}", "run.threads=1", 'run.device="cpu"', f"seed={seed}"]
    reads = [f'model.pair_input="{pair_input}"']
    if pair_input == "separate":  # such cells are trained by contrast
        reads += ["objectives.pairs.enabled=false", "objectives.contrast.enabled=true", 'sampling.input="patches"']
    pretrain(read_config("small", overrides=[*steps, *reads]), corpus.path, folder / "run")
    return folder / "run" / "model"


def by_spatialformer(
    cells: anndata.AnnData, part: NDArray[np.str_], label: str, seed: int, folder: Path
) -> Iterator[tuple[str, FinetuneResult]]:
    """Pre-train a small SpatialFormer on the training cells, and fine-tune it by each method."""
    model = small_spatialformer(cells[part == "train"].copy(), "joint", seed, folder)
    cells = in_unknown_context(cells)
    cells.obs["part"] = part
    for method in _METHODS:
        config = FinetuneConfig(method=method, seed=seed, threads=1, device="cpu", steps=400, rank=16, alpha=32.0)
        yield method, finetune_labels(
            model, cells, label, folder / method, config=config, split="part", min_cells=1,
            n_replicates=10, gap=0.0,
        )  # fmt: skip


def judged(cells: anndata.AnnData, tables: list[pd.DataFrame]) -> dict[str, Any]:
    """Judge the predictions of all folds together."""
    told = pd.concat(tables)
    classes = {name: code for code, name in enumerate(sorted(set(told.drop(columns="part").to_numpy().ravel())))}
    codes = {column: told[column].map(classes).to_numpy(np.int64) for column in told.columns.drop("part")}
    labels = codes.pop("label")
    if "spatial" in cells.obsm:
        rows = cells.obs_names.get_indexer(told.index)
        tiles = spatial_tiles(np.asarray(cells.obsm["spatial"], dtype=np.float64)[rows, :2])
    else:
        n = min(len(told), 1_000)
        tiles = Tiles(np.random.default_rng(0).permutation(len(told)) % n, n, float("nan"))
    options: Any = {"n_replicates": _REPLICATES, "seed": 0}
    scores = evaluate_predictions(labels, codes, len(classes), tiles, **options)
    differences = prediction_differences(labels, codes, len(classes), tiles, **options)
    keep = ["macro_f1", "macro_f1_low", "macro_f1_high", "accuracy"]
    return {
        "n_cells": len(told),
        "n_classes": len(set(labels)),
        "n_tiles": tiles.n,
        "scores": {row["score"]: [round(row[name], 4) for name in keep] for row in scores.to_dict("records")},
        "differences": {
            row["baseline"]: [*(round(row[name], 4) for name in keep[:3]), row["verdict"]]
            for row in differences.to_dict("records")
        },
    }


def run(path: Path, label: str, groups: str | None, how: str, seed: int, *, spatialformer: bool) -> dict[str, Any]:
    """Judge one table, by one kind of folds and one seed."""
    cells = labelled(path, label)
    began = time.process_time()
    tables, chosen = [], []
    with tempfile.TemporaryDirectory() as folder:
        if spatialformer:
            part = next(folds_of(cells, how, groups))
            found = {}
            for method, result in by_spatialformer(cells, part, label, seed, Path(folder)):
                found[method] = {
                    **judged(cells, [result.predictions]), "kept": result.record["kept"],
                    "decided_by": result.record["decided_by"], "reads": result.record["head"]["reads"],
                    "best_step": result.fit.best_step, "steps": result.fit.steps,
                }  # fmt: skip
            return {"methods": found, "cpu_seconds": round(time.process_time() - began, 1)}
        for number, part in enumerate(folds_of(cells, how, groups)):
            result = tuned(cells, part, label, groups, seed, Path(folder) / str(number))
            tables.append(result.predictions)
            chosen.append(result.record["head"])
    seconds = round(time.process_time() - began, 1)
    return {**judged(cells, tables), "chosen": chosen, "cpu_seconds": seconds}


def neighbours(
    path: Path, model: str, source: Path | None, radius: float, slide: str, held: str, seed: int
) -> dict[str, Any]:
    """Teach a model the neighbours of slides, and return what those held out say, or the held-out end of one."""
    cells = anndata.read_h5ad(path)
    cells.X = sparse.csr_matrix(cells.X).astype(np.int32)
    places = np.asarray(cells.obsm["spatial"], dtype=np.float64)[:, :2]
    names = cells.obs[slide].astype(str).to_numpy() if slide else np.full(cells.n_obs, "slide")
    cells.obs = pd.DataFrame({"slide": names}, index=cells.obs_names)
    cells = in_unknown_context(cells)
    distances = Distances(
        positive=radius, hard_min=radius * 8 / 3, hard_max=5 * radius, easy_min=5 * radius
    )  # fmt: skip
    cells.obs["split"] = split_regions(places, validation_fraction=1 / 3, gap=2 * radius)
    if held:
        cells.obs["split"] = np.where(np.isin(names, held.split(",")), "validation", "train")
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if source is not None:
            slide_of_source = anndata.read_h5ad(source)
            slide_of_source.X = sparse.csr_matrix(slide_of_source.X).astype(np.int32)
            model = str(small_spatialformer(slide_of_source, model, seed, Path(folder) / "source"))
        corpus = write_corpus(
            [cells[names == one].copy() for one in np.unique(names)],
            Path(folder) / "corpus",
            distances=distances,
            colocalization_key=None,
        )
        result = finetune_pairs(
            model, corpus, Path(folder) / "tuned", config=FinetuneConfig(seed=seed, threads=1, device="cpu"),
            evaluation=EvaluationOptions(max_pairs=2_000, radii=(radius,), seed=seed),
        )  # fmt: skip
    keep = ["auroc", "auroc_low", "auroc_high"]
    return {
        "n_cells": {part: int((cells.obs["split"] == part).sum()) for part in ("train", "validation")},
        "kept": result.record["kept"],
        "decision": result.decision,
        "scores": {
            f"{row['score']}, {row['negatives']}": [round(row[name], 4) for name in keep]
            for row in result.scores.to_dict("records")
        },
        "differences": {
            f"{row['score']} less {row['baseline']}, {row['negatives']}": [
                *(round(row[name], 4) for name in keep), row["verdict"],
            ]
            for row in result.differences.to_dict("records")
        },
        "cpu_seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def main() -> None:
    """Judge every table and end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="NAME=CELLS.h5ad:LABEL[:GROUPS]")
    parser.add_argument("--folds", nargs="+", default=["thirds"], choices=["thirds", "tiles", "groups"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--pairs", metavar="MODEL", help="Teach neighbours to this model instead.")
    parser.add_argument("--from", dest="source", type=Path, help="pairs: of what to pre-train a small model on first.")
    parser.add_argument("--radius", type=float, default=30.0, help="pairs: of neighbours, in um.")
    parser.add_argument("--spatialformer", action="store_true")
    parser.add_argument("--write", action="store_true", help="Add to the results, replacing rows of the same name.")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for given in arguments.tables:
        name, _, where = given.partition("=")
        path, label, *groups = [*where.split(":"), "", ""]
        if arguments.pairs:
            for seed in arguments.seeds:
                row = f"{name}, pairs by {Path(arguments.pairs).name}, seed {seed}"
                results[row] = neighbours(
                    Path(path), arguments.pairs, arguments.source, arguments.radius, label, groups[0], seed
                )
                print(row, results[row], flush=True)
            continue
        for how in arguments.folds:
            for seed in arguments.seeds:
                model = "spatialformer" if arguments.spatialformer else "tissue"
                row = f"{name}, {how}, {model}, seed {seed}"
                results[row] = run(
                    Path(path), label, groups[0] or None, how, seed, spatialformer=arguments.spatialformer
                )
                print(row, results[row], flush=True)
    if arguments.write:
        earlier = Path(__file__).parent / "results" / "finetuning.json"
        known = json.loads(earlier.read_text())["tables"] if earlier.exists() else {}
        machine = describe("spaf-model", "spaf-train", "scikit-learn", "torch")
        write_results("finetuning", {"machine": machine, "tables": known | results})


if __name__ == "__main__":
    main()

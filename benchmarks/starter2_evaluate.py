"""Judge starter 2 on held-out tissue, beside what needs no training there.

    python benchmarks/starter2_evaluate.py SLIDES_FOLDER MODEL [--write] [--lung COUNTS.h5ad]

MODEL is that of ``starter2.py SLIDES_FOLDER --development``, which saw nothing of what is judged. Neighbours (30 um, or
one spacing of the spots) against cells at 2.7 to 5 radii (hard) and beyond (far), by the cosine of embeddings centred
on the judged part; differences from z-scored principal components have paired 95 % intervals over tiles. Identity is
the macro-F1 of logistic regression, by strips (cells without places: by thirds drawn at random), the best of four
penalties for every row alike. Every part is standardised by its own cells alone.

``--lung`` is a table of another tissue, of which only is asked what the model says to it.
"""

import argparse
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from _machine import describe, write_results
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from starter2 import RECIPE, kind_of, on_genes, read_slides, shares_of
from tissue import Question, difference

from spaf_model import InputError, SpatialFormer, TissueModel
from spaf_model.tissue import PearsonResiduals, ZScores, reach_of
from spaf_model.tissue.components import principal_components

PENALTIES = (0.001, 0.01, 0.1, 1.0)
LEAST_OF_A_LABEL = 12
UNLABELLED = ("unlabelled", "undetermined", "nan")
CONTEXT = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}
OWN_CELLS = (300, 1_000, 3_000, 5_000)
GAP = 150.0

Rows = NDArray[np.float32]


def counts_of(slide: anndata.AnnData) -> sparse.csr_array:
    """Return all counts of a slide."""
    counts = sparse.csr_array(slide.X).astype(np.float32)
    counts.sort_indices()
    return counts


def log_counts(counts: sparse.csr_array) -> Rows:
    """Return log counts over the median total."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sparse.diags_array(np.median(totals) / np.maximum(totals, 1)) @ counts
    return np.log1p(scaled.toarray()).astype(np.float32)


def baselines(slide: anndata.AnnData) -> dict[str, Rows]:
    """Return components of the slide itself."""
    counts = counts_of(slide)
    logs = log_counts(counts)
    logs -= logs.mean(axis=0)
    of_logs = np.linalg.svd(logs, full_matrices=False) if min(logs.shape) < 400 else None
    if of_logs is None:
        values, vectors = np.linalg.eigh(logs.T @ logs)
        log_pca = logs @ vectors[:, np.argsort(values)[::-1][:30]]
    else:
        log_pca = of_logs[0][:, :30] * of_logs[1][:30]
    rows = {"PCA of log counts": log_pca}
    for name, kind in (("z-scored PCA", ZScores), ("Pearson PCA", PearsonResiduals)):
        rows[name] = kind(counts).project(principal_components([kind(counts)], 30)[0])
    return rows


def parts_of(model: TissueModel, slide: anndata.AnnData, name: str) -> dict[str, Rows]:
    """Return place, identity and joint of a slide by a model."""
    cells = slide.copy()
    model.embed(cells, identity="fixed", parts=True, min_gene_fraction=0.0)
    return {
        f"{name}, {part or 'joint'}": cells.obsm[key]
        for part, key in (("place", "X_SpaF_place"), ("identity", "X_SpaF_identity"), ("", "X_SpaF"))
    }


def random_twin(model: TissueModel, seed: int = 0) -> TissueModel:
    """Return a model of the same shape with random weights."""
    rng = np.random.default_rng(seed)
    closed, identity = (
        rng.standard_normal(each.shape).astype(np.float32) / np.float32(np.sqrt(len(each)))
        for each in (model.closed, model.identity)
    )
    assert model.network is not None
    torch.manual_seed(seed)
    network = type(model.network)(torch.from_numpy(closed), model.network.widths, 0.0).eval()
    return TissueModel(model.config, model.vocabulary, closed=closed, identity=identity, network=network)


def shuffled_twin(folder: Path, model: TissueModel) -> TissueModel:
    """Return the closed form of training slides whose places were permuted: nothing of space is left to learn."""
    slides = read_slides(folder, ("train",))
    genes = [model.vocabulary.tokens[token] for token in model.vocabulary.gene_token_ids]
    rng = np.random.default_rng(0)
    tables = []
    for name in sorted(slides, key=lambda name: (kind_of(name) != "xenium", name)):
        tables.append(on_genes(slides[name], genes, {}))
        if "spatial" in tables[-1].obsm:
            tables[-1].obsm["spatial"] = rng.permutation(tables[-1].obsm["spatial"])
    recipe = dataclasses.replace(RECIPE, preset="neighbours", network=None)
    return TissueModel.fit(tables, config=recipe, slide_key="slide", shares=shares_of(slides))


def judge_pairs(slide: anndata.AnnData, rows: dict[str, Rows]) -> dict[str, Any]:
    """Return AUROC far and hard of every row, and its difference from z-scored components."""
    places = np.asarray(slide.obsm["spatial"], dtype=np.float64)[:, :2]
    reach = reach_of(places)
    assert reach is not None
    question = Question.of(places, reach.radius)
    scores = {name: question.scores(np.asarray(states)) for name, states in rows.items()}
    return {
        "n_cells": slide.n_obs,
        "n_tiles": int(question.tile.max()) + 1,
        "neighbours": reach.reason,
        "rows": {
            name: {
                "auroc": {kind: float(values[0]) for kind, values in score.items()},
                "less z-scored PCA": difference(score, scores["z-scored PCA"]),
                "less Pearson PCA": difference(score, scores["Pearson PCA"]),
            }
            for name, score in scores.items()
        },
    }


def folds_of(slide: anndata.AnnData) -> NDArray[np.int64]:
    """Return thirds of a slide along its longer side, or thirds drawn at random where there are no places."""
    if "spatial" not in slide.obsm:
        return np.random.default_rng(0).integers(3, size=slide.n_obs)
    places = np.asarray(slide.obsm["spatial"])[:, :2]
    along = places[:, int(np.ptp(places, axis=0).argmax())]
    return np.digitize(along, np.quantile(along, [1 / 3, 2 / 3]))


def judge_labels(slide: anndata.AnnData, rows: dict[str, Rows]) -> dict[str, Any]:
    """Return the macro-F1 of every row, and its difference from z-scored components with intervals over tiles."""
    labels = slide.obs["label"].astype(str).to_numpy()
    frequent = {label for label in set(labels) - set(UNLABELLED) if (labels == label).sum() >= LEAST_OF_A_LABEL}
    kept = np.isin(labels, sorted(frequent))
    truth, folds = labels[kept], folds_of(slide)[kept]
    answers = {name: best_answer(np.asarray(states)[kept], truth, folds) for name, states in rows.items()}
    tile = tiles_of(slide)[kept]
    rng = np.random.default_rng(0)
    n_tiles = int(tile.max()) + 1
    drawn = [np.bincount(rng.integers(n_tiles, size=n_tiles), minlength=n_tiles) for _ in range(200)]
    weights = [np.ones(truth.size), *(each[tile].astype(float) for each in drawn)]
    scores = {
        name: np.array([f1_score(truth, answer, average="macro", sample_weight=each) for each in weights])
        for name, answer in answers.items()
    }
    reference = scores["z-scored PCA (50)"]
    return {
        "n_cells": int(truth.size),
        "n_labels": len(frequent),
        "n_tiles": n_tiles,
        "rows": {
            name: {
                "macro F1": float(score[0]),
                "less z-scored PCA": [
                    float(score[0] - reference[0]), *map(float, np.percentile((score - reference)[1:], [2.5, 97.5]))
                ],
            }
            for name, score in scores.items()
        },
    }  # fmt: skip


def tiles_of(slide: anndata.AnnData) -> NDArray[np.int64]:
    """Return the tile of tissue of each cell; each is one of its own where there are no places."""
    if "spatial" not in slide.obsm:
        return np.arange(slide.n_obs)
    places = np.asarray(slide.obsm["spatial"], dtype=np.float64)[:, :2]
    reach = reach_of(places)
    assert reach is not None
    return Question.of(places, reach.radius).tile


def best_answer(states: Rows, truth: NDArray[Any], folds: NDArray[np.int64]) -> NDArray[Any]:
    """Return the labels of logistic regression, each third by the other two, with the best of the penalties."""
    found = []
    for penalty in PENALTIES:
        answer = np.empty_like(truth)
        for fold in np.unique(folds):
            fitted, held = folds != fold, folds == fold
            mean = states[fitted].mean(axis=0)
            size = np.sqrt(np.square(states[fitted] - mean).sum(axis=1).mean() / 20)
            probe = LogisticRegression(C=penalty, max_iter=300)
            answer[held] = probe.fit((states[fitted] - mean) / size, truth[fitted]).predict(
                (states[held] - mean) / size
            )
        found.append((f1_score(truth, answer, average="macro"), answer))
    return max(found, key=lambda each: each[0])[1]


def label_rows(slide: anndata.AnnData, models: dict[str, TissueModel]) -> dict[str, Rows]:
    """Return what labels are read from."""
    counts = counts_of(slide)
    zscores = ZScores(counts)
    genes = models["starter"].vocabulary
    known = slide[:, genes.look_up(slide.var_names.tolist()).token_ids >= 0]
    rows = {
        "z-scored PCA (50)": zscores.project(principal_components([zscores], 50)[0]),
        "log counts of the model's genes": log_counts(counts_of(known)),
    }
    for name, model in models.items():
        rows |= {row: states for row, states in parts_of(model, slide, name).items() if not row.endswith("place")}
    return rows


def old_starter(slide: anndata.AnnData) -> dict[str, Rows]:
    """Return the embedding of starter 1, where it takes the slide."""
    cells = slide.copy()
    try:
        SpatialFormer.from_pretrained().embed(cells, **CONTEXT)
    except InputError:
        return {}
    return {"starter-1, cosine": cells.obsm["X_SpaF"]}


def own_models(rest: anndata.AnnData, part: anndata.AnnData, sizes: tuple[int, ...]) -> dict[str, Rows]:
    """Return joints of models of the slide itself, of so many cells nearest to the judged part, a gap away."""
    away = cKDTree(part.obsm["spatial"]).query(rest.obsm["spatial"])[0]
    order = np.argsort(away)
    order = order[away[order] > GAP]
    rows = {}
    for size in sizes:
        if size <= order.size:
            model = TissueModel.fit(rest[np.sort(order[:size])].copy(), radius=30.0)
            rows |= {k: v for k, v in parts_of(model, part, f"own, {size} cells").items() if k.endswith("joint")}
    return rows


def main() -> None:
    """Judge every held part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--lung", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = TissueModel.from_pretrained(options.model)
    models = {"starter": model, "random": random_twin(model)}
    shuffled = shuffled_twin(options.slides, model)
    held = read_slides(options.slides, ("held",))
    results: dict[str, Any] = {"pairs": {}, "labels": {}, "said": {}}

    def show(kind: str, name: str, found: dict[str, Any]) -> None:
        results[kind][name] = found
        print(f"\n{kind}: {name}, {found['n_cells']} cells")
        for row, values in found["rows"].items():
            print(f"  {row:34}", json.dumps(values), flush=True)

    for name, slide in held.items():
        if "label" in slide.obs and not set(slide.obs["label"].astype(str)) <= set(UNLABELLED):
            show("labels", name, judge_labels(slide, label_rows(slide, models)))
        if "spatial" not in slide.obsm:
            continue
        rows = baselines(slide)
        for kind, one in models.items():
            rows |= parts_of(one, slide, kind)
        rows["shuffled places, place"] = parts_of(shuffled, slide, "shuffled")["shuffled, place"]
        rows |= old_starter(slide)
        own = TissueModel.fit(slide.copy(), "neighbours")
        rows["closed form of these cells, place"] = parts_of(own, slide, "own")["own, place"]
        if name in ("region_b", "dense_window"):
            rest = anndata.read_h5ad(options.slides / f"{name}.h5ad")
            rows |= own_models(rest[(rest.obs["part"] != "held").to_numpy()], slide, OWN_CELLS)
        show("pairs", name, judge_pairs(slide, rows))
        if name == "region_b":
            some = np.sort(np.random.default_rng(0).choice(slide.n_vars, slide.n_vars // 2, replace=False))
            half = slide[:, some].copy()
            found = judge_pairs(half, baselines(half) | parts_of(model, half, "starter"))
            show("pairs", f"{name}, half of the panel", found)
    if options.lung:
        results["said"]["lung"] = what_is_said(model, anndata.read_h5ad(options.lung))
    mouse = next(iter(held.values())).copy()
    mouse.var_names = [name.capitalize() for name in mouse.var_names]
    results["said"]["mouse symbols"] = what_is_said(model, mouse)
    print(results["said"])
    if options.write:
        machine = describe("spaf-model", "torch", "numpy", "scipy", "scikit-learn")
        write_results("starter2", {"machine": machine, **results})


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(f"{record.levelname}: {record.getMessage()}")


def what_is_said(model: TissueModel, slide: anndata.AnnData) -> str:
    """Return what the model says to a slide: a refusal, or what it read."""
    handler = _Said()
    logger = logging.getLogger("spaf_model")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        model.embed(slide)
    except InputError as error:
        return f"refused: {error}"
    finally:
        logger.removeHandler(handler)
    return " ".join(handler.said)


if __name__ == "__main__":
    main()

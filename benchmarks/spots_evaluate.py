"""Judge the starter model `spots` on tissue that it was not trained on, beside baselines.

    python benchmarks/spots_evaluate.py CELLS_FOLDER SLIDES_FOLDER MODEL [--write] [--name NAME]

CELLS_FOLDER and SLIDES_FOLDER are those of ``spots.py``, whose genes are taken from the model. Judged are

- **a spot from its neighbours**: R2 over the 300 genes that vary most, of log(1 + counts per ten thousand) around the
  mean of each gene, on patient D of HER2 ST (a patient that was held out) and on the held-out end of the Visium slide.
  Beside the model: the mean of the 6 nearest spots, as published, and Gaussian weights over 30, of the width that is
  best *on what is judged*. The model answers negative binomials, of which the expectation of that logarithm is taken,
  as it is and with the mean of each gene moved to that of the other spots of the slide;
- **embeddings of a slide that was not trained on**: what a spot is (regions that a pathologist drew on section D1, by
  logistic regression, whole quadrants held out) and where it lies (AUROC of cosines, 6 nearest against random pairs),
  on D1 and on cells of Xenium region_c, beside 30 principal components of the slide itself, random weights and a
  random projection;
- **the control**: real cells told from cells whose counts were shuffled among their own genes.

Intervals are of the bootstrap over quadrants of sections, 95 %.
"""

import argparse
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import spots
from _machine import describe, write_results
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.special import gammaln
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from spaf_model import load_model

N_GENES = 300
WIDTHS = (0.6, 0.8, 1.0, 1.3, 1.7, 2.2)  # of Gaussian baselines, in mean distances of the six nearest
N_BOOT = 1000
REGION = "region_c"
N_REGION_CELLS = 3000


def log_rates(counts: Any) -> np.ndarray:
    """Return log(1 + counts per ten thousand)."""
    dense = np.asarray(sparse.csr_matrix(counts).todense(), dtype=np.float64)
    return np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1.0))


def quadrants(places: np.ndarray) -> np.ndarray:
    """Return the number of the quadrant of each place."""
    return ((places > np.median(places, axis=0)) * [1, 2]).sum(axis=1)


def mean_of_neighbours(values: np.ndarray, places: np.ndarray, k: int, width: float | None) -> np.ndarray:
    """Return the mean of the values of the k nearest others, or their Gaussian mean."""
    distances, near = cKDTree(places).query(places, k=min(k + 1, len(places)))
    distances, near = distances[:, 1:], near[:, 1:]
    weights = np.ones_like(distances)
    if width is not None:
        weights = np.exp(-0.5 * (distances / distances[:, :6].mean(axis=1, keepdims=True) / width) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkg->ng", weights, values[near])


def expected_log_rates(means: np.ndarray, totals: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return the expectation of log(1 + 10^4 c / N) of negative binomials, (n, genes), by adding up their terms."""
    expected, left = np.zeros_like(means), np.ones_like(means)
    for count in range(400):
        chance = np.exp(
            gammaln(count + inverse) - gammaln(inverse) - gammaln(count + 1.0)
            + inverse * np.log(inverse / (inverse + means)) + count * np.log(means / (inverse + means))
        )  # fmt: skip
        expected += chance * np.log1p(1e4 * count / totals)
        left -= chance
    # What lies beyond is at its mean, to a part in ten thousand of the spots here.
    return expected + np.clip(left, 0.0, 1.0) * np.log1p(1e4 * np.maximum(means, 400.0) / totals)


def r2_of(truth: np.ndarray, answers: dict[str, np.ndarray], blocks: np.ndarray) -> dict[str, Any]:
    """Return R2 of each answer, and its difference from the best baseline, with intervals over blocks."""
    centre = truth.mean(axis=0)
    names = np.unique(blocks)
    spread = np.array([((truth - centre)[blocks == block] ** 2).sum() for block in names])
    left = {
        name: np.array([((truth - answer)[blocks == block] ** 2).sum() for block in names])
        for name, answer in answers.items()
    }
    draws = np.random.default_rng(0).integers(0, names.size, (N_BOOT, names.size))
    sampled = {name: 1.0 - own[draws].sum(axis=1) / spread[draws].sum(axis=1) for name, own in left.items()}
    found: dict[str, Any] = {
        name: {"r2": float(1.0 - own.sum() / spread.sum()), "interval": _interval(sampled[name])}
        for name, own in left.items()
    }
    baseline = max((name for name in answers if name.startswith("gaussian")), key=lambda name: found[name]["r2"])
    for name in answers:
        if not name.startswith(("gaussian", "mean of")):
            found[name]["beyond"] = {
                "baseline": baseline,
                "difference": found[name]["r2"] - found[baseline]["r2"],
                "interval": _interval(sampled[name] - sampled[baseline]),
            }
    return {"n_spots": len(truth), "n_blocks": int(names.size), **found}


def _interval(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def judge_neighbourhood(model: Any, slides: dict[str, ad.AnnData], genes: list[str]) -> dict[str, Any]:
    """Judge spots from their neighbours, on slides that are pooled."""
    truth, blocks = [], []
    answers: dict[str, list[np.ndarray]] = {}
    ids = model.vocabulary.look_up(genes).token_ids
    inverse = np.exp(np.clip(model.network.count_output.log_inverse_dispersion.detach().numpy()[ids], -10, 10))
    for number, adata in enumerate(slides.values()):
        columns = adata.var_names.get_indexer(genes)
        values, places = log_rates(adata.X)[:, columns], adata.obsm["spatial"]
        truth.append(values)
        blocks.append(quadrants(places) + 4 * number)
        given = {"mean of 6": mean_of_neighbours(values, places, 6, None)}
        given |= {f"gaussian of 30, width {w:g}": mean_of_neighbours(values, places, 30, w) for w in WIDTHS}
        found = model.expression(adata, genes, niche=True, progress=False)
        totals = np.asarray(adata.X.sum(axis=1), dtype=np.float64)
        given["model"] = expected_log_rates(np.maximum(found.niche.astype(np.float64), 1e-9), totals, inverse)
        # What a gene is on the average of a slide is known of a slide that was not trained on: neighbours say it, and
        # the means of neighbours have it. Each spot's own value is left out of the average that it is judged with.
        shift = ((values - given["model"]).sum(axis=0) - (values - given["model"])) / max(len(values) - 1, 1)
        given["model, gene means of the slide"] = given["model"] + shift
        best = given["gaussian of 30, width 1.3"]
        given["both, halves"] = 0.5 * (given["model, gene means of the slide"] + best)
        for name, answer in given.items():
            answers.setdefault(name, []).append(answer)
    joined = {name: np.concatenate(parts) for name, parts in answers.items()}
    return r2_of(np.concatenate(truth), joined, np.concatenate(blocks))


def embeddings_of(model: Any, random: Any, adata: ad.AnnData) -> dict[str, np.ndarray]:
    """Return the embeddings that are compared, centred."""
    values = log_rates(adata.X)
    found = {"PCA of 30": PCA(30, random_state=0).fit_transform(values)}
    found["random projection"] = values @ np.random.default_rng(0).normal(size=(values.shape[1], 128))
    for name, one in (("model", model), ("random weights", random)):
        copy = adata.copy()
        one.embed(copy, progress=False)
        found[name] = copy.obsm["X_SpaF"]
    return {name: embedding - embedding.mean(axis=0) for name, embedding in found.items()}


def judge_place(embeddings: dict[str, np.ndarray], places: np.ndarray) -> dict[str, Any]:
    """Return the AUROC of cosines, the 6 nearest against random pairs, with intervals over quadrants."""
    generator = np.random.default_rng(0)
    near = cKDTree(places).query(places, k=7)[1][:, 1:]
    far = generator.integers(0, len(places), near.shape)
    block, found, sampled = quadrants(places), {}, {}
    draws = generator.integers(0, 4, (200, 4))
    for name, embedding in embeddings.items():
        unit = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-9)
        cosines = np.concatenate([np.einsum("cd,ckd->ck", unit, unit[other]) for other in (near, far)], axis=1)
        labels = np.repeat([1, 0], 6)[None].repeat(len(places), axis=0)

        def auroc(rows: np.ndarray, cosines: np.ndarray = cosines, labels: np.ndarray = labels) -> float:
            return float(roc_auc_score(labels[rows].ravel(), cosines[rows].ravel()))

        of_draw = [np.concatenate([np.flatnonzero(block == own) for own in draw]) for draw in draws]
        sampled[name] = np.array([auroc(rows) for rows in of_draw])
        found[name] = {"auroc": auroc(np.arange(len(places))), "interval": _interval(sampled[name])}
    found["model"]["beyond PCA"] = _interval(sampled["model"] - sampled["PCA of 30"])
    return found


def judge_identity(embeddings: dict[str, np.ndarray], labels: np.ndarray, places: np.ndarray) -> dict[str, Any]:
    """Return macro-F1 of logistic regression, each quadrant told from the other three."""
    block, known = quadrants(places), labels != ""
    found, right = {}, {}
    for name, embedding in embeddings.items():
        told = np.full(labels.shape, "", dtype=object)
        for own in range(4):
            train, test = known & (block != own), known & (block == own)
            scaler = StandardScaler().fit(embedding[train])
            probe = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(embedding[train]), labels[train])
            told[test] = probe.predict(scaler.transform(embedding[test]))
        right[name] = told[known] == labels[known]
        found[name] = {
            "macro_f1": float(f1_score(labels[known], told[known].astype(str), average="macro")),
            "accuracy": float(right[name].mean()),
        }
    draws = np.random.default_rng(0).integers(0, 4, (N_BOOT, 4))
    sums = {name: np.array([own[block[known] == q].sum() for q in range(4)]) for name, own in right.items()}
    n = np.array([(block[known] == q).sum() for q in range(4)])
    gain = (sums["model"] - sums["PCA of 30"])[draws].sum(axis=1) / n[draws].sum(axis=1)
    found["model"]["accuracy beyond PCA"] = _interval(gain)
    return {"n_labels": int(known.sum()), **found}


def judge_shuffled(model: Any, random: Any, adata: ad.AnnData) -> dict[str, Any]:
    """Return the AUROC of telling real cells from those whose counts were shuffled among their genes."""
    shuffled = adata.copy()
    counts = sparse.csr_matrix(shuffled.X).copy()
    generator = np.random.default_rng(0)
    for row in range(counts.shape[0]):
        own = slice(counts.indptr[row], counts.indptr[row + 1])
        counts.data[own] = generator.permutation(counts.data[own])
    shuffled.X = counts
    shuffled.obs_names = [f"{name}-shuffled" for name in shuffled.obs_names]
    both = ad.concat([adata, shuffled])
    is_real = np.repeat([1, 0], adata.n_obs)
    block = np.tile(quadrants(adata.obsm["spatial"]), 2)
    found = {}
    for name, embedding in embeddings_of(model, random, both).items():
        scores = np.zeros(len(is_real))
        for own in range(4):
            scaler = StandardScaler().fit(embedding[block != own])
            probe = LogisticRegression(C=0.1, max_iter=2000)
            probe.fit(scaler.transform(embedding[block != own]), is_real[block != own])
            scores[block == own] = probe.decision_function(scaler.transform(embedding[block == own]))
        found[name] = float(roc_auc_score(is_real, scores))
    return found


def main() -> None:
    """Judge, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path)
    parser.add_argument("slides", type=Path)
    parser.add_argument("model")
    parser.add_argument("--name", default="spots")
    parser.add_argument("--neighbourhood-only", action="store_true", help="leave embeddings and the control out")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model = load_model(options.model)
    random = type(model)(model.config, model.vocabulary, seed=1)
    slides = spots.read_slides(options.cells, options.slides)
    known = set(model.vocabulary.tokens)
    slides = {name: adata[:, [g for g in adata.var_names if g in known]].copy() for name, adata in slides.items()}
    her2 = {name: adata for name, adata in slides.items() if name.startswith("her2_D")}
    held = slides["visium"][slides["visium"].obs["split"] == "validation"].copy()
    results: dict[str, Any] = {"neighbourhood": {}, "n_parameters": model.n_parameters}
    for name, judged in (("HER2, patient D", her2), ("Visium, held-out end", {"visium": held})):
        pooled = np.concatenate([log_rates(adata.X) for adata in judged.values()])
        first = next(iter(judged.values()))
        genes = first.var_names[np.argsort(-pooled.var(axis=0))[:N_GENES]].tolist()
        results["neighbourhood"][name] = judge_neighbourhood(model, judged, genes)
        print(name, results["neighbourhood"][name], flush=True)
    if not options.neighbourhood_only:
        d1 = slides["her2_D1"]
        labels = ad.read_h5ad(options.slides / "her2st_patients_ABCD.h5ad").obs
        labels = labels[labels["section"] == "D1"]["label"].astype(object)
        labels = labels.where(labels.notna(), "").to_numpy().astype(str)
        labels = labels[[int(name.rsplit("-", 1)[1]) for name in d1.obs_names]]
        table = pd.read_parquet(options.cells / f"{REGION}.parquet").head(N_REGION_CELLS * 2)
        genes = [column for column in table.columns if column not in spots.NOT_GENES]
        places = table[["x_centroid", "y_centroid"]].to_numpy(dtype=np.float64)
        region = spots.make_slide(table[genes].to_numpy(dtype=np.int32), genes, places, REGION, "Xenium")
        region = region[:N_REGION_CELLS].copy()
        of_d1, of_region = (embeddings_of(model, random, adata) for adata in (d1, region))
        results["identity"] = {"HER2 D1": judge_identity(of_d1, labels, d1.obsm["spatial"])}
        results["place"] = {
            "HER2 D1": judge_place(of_d1, d1.obsm["spatial"]),
            f"Xenium {REGION}": judge_place(of_region, region.obsm["spatial"]),
        }
        results["real from shuffled"] = {
            "HER2 D1": judge_shuffled(model, random, d1),
            f"Xenium {REGION}": judge_shuffled(model, random, region),
        }
        for name in ("identity", "place", "real from shuffled"):
            print(name, results[name], flush=True)
    if options.write:
        write_results(options.name, {**results, "machine": describe("spaf-model", "torch", "numpy", "scikit-learn")})


if __name__ == "__main__":
    main()

"""Judge the starter model `spots` on tissue that it was not trained on, beside baselines.

    python benchmarks/spots_evaluate.py CELLS_FOLDER SLIDES_FOLDER MODEL [--write] [--name NAME]

CELLS_FOLDER and SLIDES_FOLDER are those of ``spots.py``, whose genes are taken from the model. Judged are

- **a spot from its neighbours**: R2 of log(1 + counts per ten thousand) around the mean of each gene, on patient D of
  HER2 ST (a patient that was held out) and on the held-out end of the Visium slide, by two definitions: *pooled*, one
  ratio of sums over the 300 genes that vary most, and *by gene*, the mean of the R2 of the 300 genes with most counts
  (``--yardsticks-only`` has both for all four patients at once, where most of it is how patients differ). Beside the
  model: the mean of the 6 nearest spots, as published, Gaussian weights over 30, of the width that is best *on what is
  judged*, and *seen alone*, the same weights without what the decoder adds. The model answers negative binomials, of
  which the expectation of that logarithm is taken, as it is and with the mean of each gene moved to that of the other
  spots of the slide; also the share of the Poisson deviance of counts, where nothing is moved, beside a Gaussian mean
  of counts;
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
from scipy.special import gammaln, xlogy
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


def r2_of(
    truth: np.ndarray, answers: dict[str, np.ndarray], blocks: np.ndarray, *, by_gene: bool = False
) -> dict[str, Any]:
    """Return R2 of each answer, and its difference from the best baseline, with intervals over blocks.

    One ratio of sums over all genes, or the mean of the ratios of the genes.
    """
    centre = truth.mean(axis=0)
    names = np.unique(blocks)

    def sums(squares: np.ndarray) -> np.ndarray:
        """Return sums of squares of each block, of all genes or of each."""
        own = np.stack([squares[blocks == block].sum(axis=0) for block in names])
        return own if by_gene else own.sum(axis=1, keepdims=True)

    def share(left: np.ndarray, of: np.ndarray) -> np.ndarray:
        return (1.0 - left / np.maximum(of, 1e-9)).mean(axis=-1)

    spread = sums((truth - centre) ** 2)
    left = {name: sums((truth - answer) ** 2) for name, answer in answers.items()}
    draws = np.random.default_rng(0).integers(0, names.size, (N_BOOT, names.size))
    drawn = spread[draws].sum(axis=1)
    sampled = {name: share(own[draws].sum(axis=1), drawn) for name, own in left.items()}
    found: dict[str, Any] = {
        name: {"r2": float(share(own.sum(axis=0), spread.sum(axis=0))), "interval": _interval(sampled[name])}
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


def deviance_of(counts: np.ndarray, answers: dict[str, np.ndarray], blocks: np.ndarray) -> dict[str, Any]:
    """Return the share of the Poisson deviance around the mean of each gene that answers, of mean counts, explain."""
    names = np.unique(blocks)
    answers = {**answers, "of means": np.broadcast_to(counts.mean(axis=0), counts.shape)}

    def left(means: np.ndarray) -> np.ndarray:
        means = np.maximum(means, 1e-9)
        own = 2.0 * (xlogy(counts, counts / means) - (counts - means))
        return np.array([own[blocks == block].sum() for block in names])

    sums = {name: left(answer) for name, answer in answers.items()}
    draws = np.random.default_rng(0).integers(0, names.size, (N_BOOT, names.size))
    of_means = sums.pop("of means")
    sampled = {name: 1.0 - own[draws].sum(axis=1) / of_means[draws].sum(axis=1) for name, own in sums.items()}
    found: dict[str, Any] = {name: {"share": float(1.0 - own.sum() / of_means.sum())} for name, own in sums.items()}
    baseline = max((name for name in sums if name.startswith("gaussian")), key=lambda name: found[name]["share"])
    for name in ("seen alone", "model"):
        found[name]["beyond"] = {"baseline": baseline, "interval": _interval(sampled[name] - sampled[baseline])}
    return found


def smoothed_counts(counts: np.ndarray, totals: np.ndarray, places: np.ndarray, width: float) -> np.ndarray:
    """Return mean counts by a Gaussian mean of the 30 nearest, with the rest of the slide as one neighbour more."""
    distances, near = cKDTree(places).query(places, k=min(31, len(places)))
    distances, near = distances[:, 1:], near[:, 1:]
    weights = np.exp(-0.5 * (distances / distances[:, :6].mean(axis=1, keepdims=True) / width) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    around = np.einsum("nk,nkg->ng", weights, counts[near]) / (weights * totals[near]).sum(axis=1, keepdims=True)
    rest = (counts.sum(axis=0) - counts + 1e-3) / (totals.sum() - totals)[:, None]
    n_effective = 1.0 / (weights**2).sum(axis=1, keepdims=True)
    smoothed: np.ndarray = totals[:, None] * (n_effective * around + rest) / (n_effective + 1.0)
    return smoothed


def _interval(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def seen_alone(model: Any) -> Any:
    """Return a model that joins nothing of its decoder with what neighbours were seen to have; itself without a mix."""
    if model.network.neighbour_mix is None:
        return model
    alone = type(model)(model.config, model.vocabulary)
    alone.network.load_state_dict(model.network.state_dict())
    alone.network.neighbour_mix.gate.data.fill_(100.0)
    alone.network.eval()
    return alone


def judge_neighbourhood(
    model: Any, slides: dict[str, ad.AnnData], genes: list[str], *, by_gene: bool
) -> dict[str, Any]:
    """Judge spots from their neighbours, on slides that are pooled."""
    truth, blocks = [], []
    answers: dict[str, list[np.ndarray]] = {}
    counts: list[np.ndarray] = []
    means_of: dict[str, list[np.ndarray]] = {}
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
        seen = seen_alone(model).expression(adata, genes, niche=True, progress=False)
        totals = np.asarray(adata.X.sum(axis=1), dtype=np.float64)
        counts.append(np.asarray(adata.X[:, columns].todense(), dtype=np.float64))
        for width in WIDTHS:
            of_counts = smoothed_counts(counts[-1], totals.ravel(), places, width)
            means_of.setdefault(f"gaussian of 30, width {width:g}", []).append(of_counts)
        for name, means in (("seen alone", seen.niche), ("model", found.niche)):
            means_of.setdefault(name, []).append(np.maximum(means.astype(np.float64), 1e-9))
            given[name] = expected_log_rates(means_of[name][-1], totals, inverse)
        # What a gene is on the average of a slide is known of a slide that was not trained on: neighbours say it, and
        # the means of neighbours have it. Each spot's own value is left out of the average that it is judged with.
        for name in ("seen alone", "model"):
            shift = ((values - given[name]).sum(axis=0) - (values - given[name])) / max(len(values) - 1, 1)
            given[f"{name}, gene means of the slide"] = given[name] + shift
        best = given["gaussian of 30, width 1.3"]
        given["both, halves"] = 0.5 * (given["model, gene means of the slide"] + best)
        for name, answer in given.items():
            answers.setdefault(name, []).append(answer)
    joined = {name: np.concatenate(parts) for name, parts in answers.items()}
    found_r2 = r2_of(np.concatenate(truth), joined, np.concatenate(blocks), by_gene=by_gene)
    joined = {name: np.concatenate(parts) for name, parts in means_of.items()}
    in_counts = deviance_of(np.concatenate(counts), joined, np.concatenate(blocks))
    return {**found_r2, "share of the deviance of counts": in_counts}


def yardsticks(slides: Path) -> dict[str, Any]:
    """Return R2 by both definitions and on the average of sections, of all patients and of the Visium slide, all genes.

    Nothing is trained here, so nothing is held out.
    """
    spots_of = ad.read_h5ad(slides / "her2st_patients_ABCD.h5ad")
    sections = [spots_of[spots_of.obs["section"] == name] for name in sorted(spots_of.obs["section"].unique())]
    visium = [ad.read_h5ad(slides / "breast_visium_registered_left.h5ad")]
    found: dict[str, Any] = {}
    for title, parts in (("HER2, four patients", sections), ("Visium, left half", visium)):
        counts = sparse.vstack([sparse.csr_matrix(part.X) for part in parts])
        genes = np.argsort(-np.asarray(counts.mean(axis=0)).ravel())[:N_GENES]
        values = [log_rates(part.X)[:, genes] for part in parts]
        truth, blocks = np.concatenate(values), np.repeat(np.arange(len(parts)), [len(own) for own in values])
        rows: dict[str, Any] = {}
        for name, k, width in (("mean of 6", 6, None), *((f"gaussian of 30, width {w:g}", 30, w) for w in WIDTHS)):
            near = [
                mean_of_neighbours(own, part.obsm["spatial"], k, width) for own, part in zip(values, parts, strict=True)
            ]
            answer = {f"gaussian {name}": np.concatenate(near)}
            kinds = {
                kind: r2_of(truth, answer, blocks, by_gene=kind == "by gene")[f"gaussian {name}"]["r2"]
                for kind in ("pooled", "by gene")
            }
            within = [
                r2_of(own, {"gaussian": one}, np.zeros(len(own), dtype=int), by_gene=True)["gaussian"]["r2"]
                for own, one in zip(values, near, strict=True)
            ]
            rows[name] = {**kinds, "by gene, mean of sections": float(np.mean(within))}
        found[title] = rows
    return found


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
    parser.add_argument("--yardsticks-only", action="store_true", help="baselines on all spots; no model is read")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.yardsticks_only:
        found = yardsticks(options.slides)
        print(found)
        if options.write:
            write_results(f"{options.name}_yardsticks", {**found, "machine": describe("numpy", "scikit-learn")})
        return
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
        counts = np.concatenate([np.asarray(adata.X.mean(axis=0)) for adata in judged.values()]).mean(axis=0)
        first = next(iter(judged.values()))
        for kind, order in (("pooled", pooled.var(axis=0)), ("by gene", counts)):
            genes = first.var_names[np.argsort(-order)[:N_GENES]].tolist()
            found = judge_neighbourhood(model, judged, genes, by_gene=kind == "by gene")
            results["neighbourhood"][f"{name}, {kind}"] = found
            print(name, kind, found, flush=True)
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

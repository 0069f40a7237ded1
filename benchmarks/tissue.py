"""The own-tissue model on held-out tissue, beside what needs no training.

    python benchmarks/tissue.py NAME=SLIDE.h5ad .. [--axes x y] [--ends high low] [--seeds 0 1] [--write]

A slide has counts in X and places in obsm["spatial"], in any unit. A third of it at one end of an axis is held out,
with a gap of two radii, and the model is fitted on the rest. Judged are pairs of cells of the held-out third:
neighbours (in a radius) against cells at 2.7 to 5 radii (hard) and beyond (far), by the cosine of embeddings centred on
that third. Differences have paired 95 % intervals over tiles of tissue. Rows:

- ``z-scored PCA``, ``Pearson PCA``: 30 principal components of the held-out third itself;
- ``neighbours``, ``tissue``: place and joint of the two presets; ``shuffled``: place of ``neighbours`` after the places
  of the training cells were permuted, which leaves nothing of space to learn.

NAME goes into the results, the path does not.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from _machine import describe, write_results
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from spaf_model import TissueModel
from spaf_model.tissue import PearsonResiduals, ZScores, reach_of
from spaf_model.tissue.components import principal_components

_HARD = (8 / 3, 5.0)  # radii
_GAP = 2.0  # radii between what is fitted and what is judged
_PER_CELL = 6  # positive pairs at most
_DRAWS = 300
_AXES = "xy"

Values = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Question:
    """Pairs of cells of a held-out part, and draws of its tiles."""

    near: NDArray[np.int64]
    other: dict[str, NDArray[np.int64]]  # hard and far, (n, 2)
    tile: NDArray[np.int64]  # of each cell
    draws: NDArray[np.int64]  # (n_draws, n_tiles): how often a tile is drawn

    @classmethod
    def of(cls, places: Values, radius: float, seed: int = 0) -> "Question":
        """Draw one hard and one far cell for each of the neighbours."""
        rng = np.random.default_rng(seed)
        tree = cKDTree(places)
        near = tree.query_pairs(radius * 1.001, output_type="ndarray")
        if len(near) > _PER_CELL * len(places):
            near = near[rng.choice(len(near), _PER_CELL * len(places), replace=False)]
        hard, far = [], []
        rings = tree.query_ball_point(places, _HARD[1] * radius)
        for cell in near[:, 0]:
            ring = np.asarray(rings[cell])
            away = np.linalg.norm(places[ring] - places[cell], axis=1)
            if (away >= _HARD[0] * radius).any():
                hard.append((cell, rng.choice(ring[away >= _HARD[0] * radius])))
            for candidate in rng.integers(len(places), size=20):
                if np.linalg.norm(places[candidate] - places[cell]) > _HARD[1] * radius:
                    far.append((cell, candidate))
                    break
        extent = np.ptp(places, axis=0)
        side = max(min(250 * radius / 30, np.sqrt(extent.prod()) / 4), 2 * radius)
        square = np.floor((places - places.min(axis=0)) / side).astype(np.int64)
        tile = np.unique(square[:, 0] * 100_000 + square[:, 1], return_inverse=True)[1]
        n_tiles = int(tile.max()) + 1
        drawn = [np.bincount(rng.integers(n_tiles, size=n_tiles), minlength=n_tiles) for _ in range(_DRAWS)]
        return cls(
            near, {"far": np.array(far), "hard": np.array(hard)}, tile, np.array([np.ones(n_tiles, int), *drawn])
        )

    def scores(self, states: NDArray[np.float32]) -> dict[str, Values]:
        """Return the AUROC far and hard: of the part as it is, then of every draw."""
        states = states - states.mean(axis=0)
        states = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-9)
        result = {}
        for kind, other in self.other.items():
            pairs = np.concatenate([self.near, other])
            cosine = np.einsum("ij,ij->i", states[pairs[:, 0]], states[pairs[:, 1]])
            order = np.argsort(cosine, kind="stable")
            is_near = order < len(self.near)
            weights = self.draws[:, self.tile[pairs[order, 0]]].astype(np.float64)
            near, rest = np.where(is_near, weights, 0), np.where(is_near, 0, weights)
            below = np.cumsum(rest, axis=1) - 0.5 * rest
            result[kind] = (near * below).sum(axis=1) / (near.sum(axis=1) * rest.sum(axis=1))
        return result


def difference(one: dict[str, Values], other: dict[str, Values]) -> dict[str, list[float]]:
    """Return one less the other with its paired 95 % interval."""
    result = {}
    for kind in one:
        low, high = np.percentile(one[kind][1:] - other[kind][1:], [2.5, 97.5])
        result[kind] = [float(one[kind][0] - other[kind][0]), float(low), float(high)]
    return result


def judge(slide: anndata.AnnData, axis: int, end: str, seeds: list[int]) -> dict[str, Any]:
    """Hold out a third at one end, fit the rest and judge."""
    places = np.asarray(slide.obsm["spatial"], dtype=np.float64)[:, :2]
    reach = reach_of(places)
    assert reach is not None
    along = places[:, axis]
    third = np.ptp(along) / 3
    gap = _GAP * reach.radius / 2
    cut = along.max() - third if end == "high" else along.min() + third
    above, below = along > cut + gap, along < cut - gap
    held, fitted = (above, below) if end == "high" else (below, above)
    train, test = slide[fitted].copy(), slide[held].copy()
    question = Question.of(places[held], reach.radius)
    counts = sparse.csr_array(test.X).astype(np.float32)
    states = {
        name: kind(counts).project(principal_components([kind(counts)], 30)[0])
        for name, kind in (("z-scored PCA", ZScores), ("Pearson PCA", PearsonResiduals))
    }
    shuffled = train.copy()
    shuffled.obsm["spatial"] = np.random.default_rng(0).permutation(train.obsm["spatial"])
    jobs = [("neighbours", train, "neighbours", 0), ("shuffled", shuffled, "neighbours", 0)]
    jobs += [(f"tissue, seed {seed}", train, "tissue", seed) for seed in seeds]
    seconds, fallback = {}, ""
    for name, data, preset, seed in jobs:
        # The radius of the whole slide: that of a part of it, or of permuted places, may be taken for another.
        radius = None if reach.nearest else reach.radius
        model = TissueModel.fit(data, preset, radius=radius, seed=seed)
        assert model.account is not None
        seconds[name], fallback = model.account.seconds, fallback or model.account.fallback
        model.embed(test, parts=True)
        states[f"{name}: place"] = test.obsm["X_SpaF_place"]
        if name != "shuffled":
            states[f"{name}: joint"] = test.obsm["X_SpaF"]
    scores = {name: question.scores(state) for name, state in states.items()}
    rows = {
        name: {
            "auroc": {kind: float(values[0]) for kind, values in score.items()},
            "less z-scored PCA": difference(score, scores["z-scored PCA"]),
            "less neighbours": difference(score, scores["neighbours: place"]),
        }
        for name, score in scores.items()
    }
    n_tiles = int(question.tile.max()) + 1
    sizes = {"n_fitted": train.n_obs, "n_judged": test.n_obs, "n_genes": slide.n_vars, "n_tiles": n_tiles}
    return {**sizes, "neighbours": reach.reason, "fallback": fallback, "fit_seconds": seconds, "rows": rows}


def main() -> None:
    """Judge every slide and end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+", metavar="NAME=SLIDE.h5ad")
    parser.add_argument("--axes", nargs="+", default=["x"], choices=list(_AXES))
    parser.add_argument("--ends", nargs="+", default=["high"], choices=["high", "low"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for given in arguments.slides:
        name, _, path = given.partition("=")
        slide = anndata.read_h5ad(Path(path))
        for axis in arguments.axes:
            for end in arguments.ends:
                part = f"{name}, {axis} {end}"
                results[part] = judge(slide, _AXES.index(axis), end, arguments.seeds)
                print(f"{part}: {results[part]['n_fitted']} fitted, {results[part]['n_judged']} judged")
                for row, values in results[part]["rows"].items():
                    far, hard = (
                        f"{values['auroc'][kind]:.3f} ({{:+.3f}}: {{:+.3f}}, {{:+.3f}})".format(
                            *values["less z-scored PCA"][kind]
                        )
                        for kind in ("far", "hard")
                    )
                    print(f"  {row:<24}{far}   {hard}", flush=True)
    if arguments.write:
        write_results("tissue", {"machine": describe("spaf-model", "torch", "numpy", "scipy"), "slides": results})


if __name__ == "__main__":
    main()

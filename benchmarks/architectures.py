"""A SpatialFormer against a perceptron of the same time: what each part is worth, and what it would take to be level.

    python benchmarks/architectures.py NAME=SLIDE.h5ad:AXIS:END:LABEL .. [--seconds 6] [--minutes 60] [--scaling NAME]

Slides, held-out thirds and the judge of pairs are those of ``tissue.py``; LABEL, a column of obs for the identity F1,
may be left out. Both architectures have the same batches (patches), linear path, heads, objectives (contrast of
neighbours on a projection of its own, reconstruction of own counts, pairs by the slide-centred cosine) and optimizer,
so that what differs is what makes a state of a cell. Time is CPU seconds of forward, backward and optimizer on one
thread. Judged are, for two seeds, the perceptron and the SpatialFormer at ``--seconds`` and at ten times that; the
SpatialFormer with one part off at a time, and with all off, at ``--seconds``, and on the slide of ``--scaling`` with
the first seed at ten times. ``--scaling`` looks at the held-out contrast along time for three sizes and three numbers
of cells.

Each job is written to ``results/architectures.json`` when it is done, and is not done again; after ``--minutes`` of CPU
time over all runs no further job begins. A table of it: ``--table``.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from _architectures import PARTS, Recipe, corpus_of, macro_f1, states_of, train
from _architectures_table import compared, scaling
from _machine import describe
from scipy import sparse
from tissue import _AXES, _GAP, Question

from spaf_model import TissueModel
from spaf_model.tissue import PearsonResiduals, ZScores, reach_of
from spaf_model.tissue.components import principal_components

RESULTS = Path(__file__).parent / "results" / "architectures.json"
SIZES = {"48 x 1": (48, 1), "96 x 1": (96, 1), "192 x 2": (192, 2)}  # width x layers
CELLS = (1_000, 3_300, 10_000)
LOOKS = (1.5, 3.0, 6.0, 12.0)


class Slide:
    """A slide with its held-out third."""

    def __init__(self, given: str, folder: Path) -> None:
        self.name, _, rest = given.partition("=")
        path, axis, self.end, self.label = [*rest.split(":"), ""][:4]
        whole = anndata.read_h5ad(path)
        places = np.asarray(whole.obsm["spatial"], dtype=np.float64)[:, :2]
        reach = reach_of(places)
        assert reach is not None
        self.reach, along = reach, places[:, _AXES.index(axis)]
        third, gap = np.ptp(along) / 3, _GAP * reach.radius / 2
        cut = along.max() - third if self.end == "high" else along.min() + third
        above, below = along > cut + gap, along < cut - gap
        held, fitted = (above, below) if self.end == "high" else (below, above)
        self.train, self.test = whole[fitted].copy(), whole[held].copy()
        self.question = Question.of(places[held], reach.radius)
        # For fewer cells: those nearest to the cut, so that they lie together.
        self.order = np.argsort(np.abs(along[fitted] - cut), kind="stable")
        self._folder, self._corpora = folder, {}

    def corpus(self, n_cells: int | None = None) -> Any:
        """Return the corpus of the fitted part, or of so many cells of it."""
        if n_cells not in self._corpora:
            train = self.train if n_cells is None else self.train[np.sort(self.order[:n_cells])].copy()
            folder = self._folder / f"{self.name}-{n_cells}".replace(" ", "_")
            self._corpora[n_cells] = corpus_of(train, self.test, self.reach.radius, folder)
        return self._corpora[n_cells]

    def f1(self, train_states: Any, states: Any) -> float | None:
        """Return the identity F1, where there are labels."""
        if not self.label:
            return None
        labels = [part.obs[self.label].astype(str).to_numpy() for part in (self.train, self.test)]
        return macro_f1(train_states, labels[0], states, labels[1])

    def judged(self, train_states: Any, states: Any) -> dict[str, Any]:
        """Return the AUROCs over draws, for paired differences, and the F1."""
        return {**rounded(self.question.scores(states)), "f1": self.f1(train_states, states)}


def rounded(scores: dict[str, Any]) -> dict[str, Any]:
    """Return AUROCs over draws as a row of the results."""
    return {"scores": {kind: np.round(values, 5).tolist() for kind, values in scores.items()}}


def baselines(slide: Slide) -> dict[str, Any]:
    """Judge what needs no such training: components of either part, the closed form and the own-tissue model."""
    counts = [sparse.csr_array(part.X).astype(np.float32) for part in (slide.train, slide.test)]
    rows = {}
    for name, kind in (("z-scored PCA", ZScores), ("Pearson PCA", PearsonResiduals)):
        fitted = [kind(one) for one in counts]
        # Pairs by components of the judged part; labels by those of the fitted one, which both parts must share.
        own, shared = (principal_components([one], 30)[0] for one in (fitted[1], fitted[0]))
        both = [one.project(shared) for one in fitted]
        rows[name] = {**rounded(slide.question.scores(fitted[1].project(own))), "f1": slide.f1(*both)}
    for preset in ("neighbours", "tissue"):
        radius = None if slide.reach.nearest else slide.reach.radius
        began = time.process_time()
        model = TissueModel.fit(slide.train, preset, radius=radius)
        seconds = time.process_time() - began
        parts = [part.copy() for part in (slide.train, slide.test)]
        for part in parts:
            model.embed(part, parts=True, identity="fixed")  # labels need the same axes on both parts
        joint = [part.obsm["X_SpaF"] for part in parts]
        scores = slide.question.scores(parts[1].obsm["X_SpaF_place"])
        rows[f"{preset}: place (F1 of joint)"] = {**rounded(scores), "f1": slide.f1(*joint), "seconds": seconds}
    return rows


def run(slide: Slide, recipe: Recipe, seconds: float, seed: int) -> dict[str, Any]:
    """Train one recipe and judge it."""
    done = train(recipe, slide.corpus(), seconds, seed=seed)
    states = states_of(done.model, slide.test)
    of_train = states_of(done.model, slide.train) if slide.label else None
    n = sum(p.numel() for p in done.model.network.parameters())
    return {**slide.judged(of_train, states), "seconds": done.seconds, "steps": done.steps, "n_parameters": n}


def jobs(slides: list[Slide], seconds: float, scaling: str) -> list[tuple[str, Any]]:
    """Return the jobs by name, the most telling first."""
    found: list[tuple[str, Any]] = [(f"{slide.name}|baselines", partial(baselines, slide)) for slide in slides]

    def add(slide: Slide, name: str, recipe: Recipe, times: float, seed: int) -> None:
        found.append((f"{slide.name}|{name}|{times:g}|{seed}", partial(run, slide, recipe, times * seconds, seed)))

    def all_on(architecture: str, times: float, seed: int) -> None:
        for slide in slides:
            add(slide, architecture, Recipe.of(architecture), times, seed)

    def ablation(chosen: list[Slide], times: float, seed: int) -> None:
        less = {f"spatialformer without {part}": tuple(p for p in PARTS if p != part) for part in PARTS}
        for slide in chosen:
            for name, parts in {**less, "spatialformer, ranks alone": ()}.items():
                add(slide, name, Recipe.of("spatialformer", parts=parts), times, seed)

    def curve(slide: Slide) -> None:
        for n_cells in reversed(CELLS):
            recipes = {"mlp": Recipe.of("mlp", decays=False)}
            for size, (width, layers) in SIZES.items():
                recipes[f"spatialformer {size}"] = Recipe.of(
                    "spatialformer", width=width, n_layers=layers, decays=False
                )
            found.extend(
                (f"scaling|{name}|{n_cells}", partial(scale, slide, recipe, n_cells))
                for name, recipe in recipes.items()
            )

    def direct(architecture: str, times: float, seed: int) -> None:
        """Contrast acts on the cosine of states, as the judge does."""
        recipe = Recipe.of(architecture, parts=tuple(part for part in PARTS if part != "projection"))
        for slide in slides:
            add(slide, f"{architecture} without projection", recipe, times, seed)

    chosen = [slide for slide in slides if slide.name == scaling]
    for seed in (0, 1):
        all_on("mlp", 1.0, seed)
        all_on("spatialformer", 1.0, seed)
    for seed in (0, 1):
        all_on("spatialformer", 10.0, seed)
        direct("mlp", 1.0, seed)
        direct("spatialformer", 10.0, seed)
    for slide in chosen:
        curve(slide)
    for seed in (0, 1):
        ablation(slides, 1.0, seed)
    ablation(chosen, 10.0, 0)
    for seed in (0, 1):
        all_on("mlp", 10.0, seed)
    return found


def scale(slide: Slide, recipe: Recipe, n_cells: int) -> dict[str, Any]:
    """Return the held-out contrast along time."""
    done = train(recipe, slide.corpus(n_cells), LOOKS[-1], seed=0, looks=LOOKS)
    encoder = [done.model.network.layers, getattr(done.model.network, "perceptron", None)]
    n = sum(p.numel() for part in encoder if part is not None for p in part.parameters())
    return {"losses": done.losses, "steps": done.steps, "n_parameters": n, "seconds": done.seconds}


def main() -> None:
    """Do what is left to do, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="*", metavar="NAME=SLIDE.h5ad:AXIS:END:LABEL")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--scaling", default="", metavar="NAME")
    parser.add_argument("--only", default="", help="do the jobs whose names hold this")
    parser.add_argument("--table", action="store_true", help="print what is there, and do nothing")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cpu_seconds": 0.0, "jobs": {}}
    if arguments.table:
        print("\n".join([*compared(results["jobs"], results["seconds"]), "", *scaling(results["jobs"])]))
        return
    results["machine"] = describe("spaf-model", "spaf-train", "torch", "numpy")
    results["seconds"] = arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        slides = [Slide(given, Path(folder)) for given in arguments.slides]
        for name, job in jobs(slides, arguments.seconds, arguments.scaling):
            if name in results["jobs"] or arguments.only not in name:
                continue
            if results["cpu_seconds"] > 60.0 * arguments.minutes:
                print(f"{arguments.minutes:g} minutes are spent; left out from {name}")
                break
            began = time.process_time()
            results["jobs"][name] = job()
            results["cpu_seconds"] += time.process_time() - began
            RESULTS.write_text(json.dumps(results) + "\n")
            found = results["jobs"][name]
            shown = {kind: round(values[0], 3) for kind, values in found.get("scores", {}).items()}
            print(
                f"{name}: {shown} {found.get('f1', '')} {found.get('losses', '')} [{results['cpu_seconds']:.0f} s]",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Interactions of genes across cells: what is planted is found, what is not is not, and how fast models are asked.

With ``--joint`` also what is left of attention between cells after its controls.

    python benchmarks/perturbation.py [--slide SLIDE.h5ad --column COLUMN --pair A B ..] [--joint MODEL_DIRECTORY]
        [--seeds 10] [--first-seed 1000] [--parts PART ..] [--write]

Statistics are tried on a scorer whose interactions are known (``x W y`` of log counts), so that nothing is trained.
Speed is that of 100 pairs of cells of 50 genes each: with the starter, which reads cells apart, and with a model that
reads two cells as one sequence (of the sizes of the preset ``small``; ``--joint`` names a trained one). The published
procedure is one forward pass of one sequence for each gene pair that is deleted; it is timed with the same weights.
The slide has counts in X, places in um in obsm["spatial"], cell types in the column, and the context of its cells.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from _machine import describe, earlier_results, write_results
from scipy import sparse

from spaf_analysis import tl
from spaf_model import PerturbedPair, SpatialFormer, SpatialFormerConfig, Vocabulary

PARTS = ("planted", "types_alone", "speed", "slide", "attention")
N_GENES = 30
PLANTED = [(gene, gene + 1) for gene in range(0, 20, 2)]
CONTEXT = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}


class BilinearScore:
    """``x W y`` of the log counts of two cells: the interaction of genes i and j is ``x_i W_ij y_j``."""

    compares_states = True
    source = "known"
    weights = np.random.default_rng(0).normal(size=(N_GENES, N_GENES))

    def perturb_pairs(self, adata: Any, left: Any, right: Any, **options: Any) -> Iterator[PerturbedPair]:
        """Yield what each gene and each pair of genes does."""
        counts = np.log1p(adata.X.toarray())
        for a, b in zip(left, right, strict=True):
            i, j = np.flatnonzero(counts[a]), np.flatnonzero(counts[b])
            both = counts[a][:, None] * self.weights * counts[b]
            yield PerturbedPair(both.sum(), i, j, -both.sum(axis=1)[i], -both.sum(axis=0)[j], both[np.ix_(i, j)])


def table(counts: np.ndarray, of_type: np.ndarray, xy: np.ndarray) -> anndata.AnnData:
    """Return cells of types A and B."""
    obs = pd.DataFrame({"type": pd.Categorical(np.array(["A", "B"])[of_type])}, index=[f"c{i}" for i in range(len(xy))])
    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs)
    adata.var_names = [f"GENE{gene}" for gene in range(counts.shape[1])]
    adata.obsm["spatial"] = xy
    return adata


def planted(n_pairs: int, correlation: float, n_seeds: int, first_seed: int) -> dict[str, Any]:
    """Return power and false discoveries where the amounts of ten gene pairs go together in near pairs of cells."""
    true = {(f"GENE{i}", f"GENE{j}") for i, j in PLANTED}
    hits, calls, shares = 0, 0, []
    for seed in range(first_seed, first_seed + n_seeds):
        rng = np.random.default_rng(seed)
        n = 2 * n_pairs
        rates = rng.gamma(4.0, 1.0, (2, N_GENES)) + 1.0
        left, right = rng.normal(0, 0.5, (2, n, N_GENES))
        for first, second in PLANTED:
            alone = np.sqrt(1 - correlation**2)
            right[:n_pairs, second] = correlation * left[:n_pairs, first] + alone * right[:n_pairs, second]
        counts = np.concatenate([rng.poisson(rates[0] * np.exp(left)), rng.poisson(rates[1] * np.exp(right))])
        centre = rng.random((n, 2)) * 500
        adata = table(counts, np.repeat([0, 1], n), np.concatenate([centre, centre + [10.0, 0.0]]))
        names = adata.obs_names.to_numpy()
        pairs = pd.DataFrame({"left": names[:n], "right": names[n:], "near": np.arange(n) < n_pairs})
        tl.perturb(adata, BilinearScore(), pairs=pairs, seed=seed)
        rows = adata.uns["perturbation"]["table"]
        called = rows[rows["fdr"] <= 0.05]
        hit = sum(pair in true for pair in zip(called["gene_left"], called["gene_right"], strict=True))
        hits, calls = hits + hit, calls + len(called)
        shares.append((len(called) - hit) / max(len(called), 1))
    return {
        "near_pairs": n_pairs, "correlation": correlation, "power": hits / len(PLANTED) / n_seeds,
        "seeds": n_seeds, "first_seed": first_seed,
        "false_discovery_rate": float(np.mean(shares)), "calls": calls, "false_calls": calls - hits,
    }  # fmt: skip


def types_alone(n_seeds: int, first_seed: int) -> dict[str, Any]:
    """Return what is called where places mean nothing beyond types: the cells lie anywhere."""
    shares, called = [], 0
    for seed in range(first_seed, first_seed + n_seeds):
        rng = np.random.default_rng(seed)
        of_type = rng.integers(0, 2, 1600)
        rates = rng.gamma(2.0, 1.0, (2, N_GENES)) + 0.5
        counts = rng.poisson(rates[of_type] * np.exp(rng.normal(0, 0.5, (1600, N_GENES))))
        adata = table(counts, of_type, rng.random((1600, 2)) * 1000)
        tl.perturb(
            adata, BilinearScore(), cell_type="type", left="A", right="A" if seed % 2 else "B", seed=seed,
            n_permutations=2000,
        )  # fmt: skip
        stored = adata.uns["perturbation"]
        shares.append(float((stored["table"]["p"] < 0.05).mean()))
        called += stored["n_called"]
    return {
        "tissues": n_seeds,
        "first_seed": first_seed,
        "share_of_p_below_05": float(np.mean(shares)),
        "calls": called,
    }


def on_slide(path: Path, column: str, left: str, right: str, model: str, n_shuffled: int) -> dict[str, Any]:
    """Return what is tested and called on a slide, and with the places of each type shuffled."""
    adata = anndata.read_h5ad(path)
    options: dict[str, Any] = {"cell_type": column, "left": left, "right": right}
    started = time.perf_counter()
    tl.perturb(adata, model, **options)
    found = adata.uns["perturbation"]
    rows = found["table"]
    result = {
        "left": left, "right": right, "seconds": time.perf_counter() - started,
        **{
            name: found[name]
            for name in (
                "n_near", "n_tiles", "n_seen", "n_tested", "n_called", "n_controls", "n_controls_called", "n_fitted",
                "additive_r2", "auroc", "is_exact",
            )
        },
        "share_of_p_below_05": float((rows["p"] < 0.05).mean()), "smallest_fdr": float(rows["fdr"].min()),
        "single_genes_tested": len(found["genes"]), "single_genes_called": int((found["genes"]["fdr"] <= 0.05).sum()),
    }  # fmt: skip
    shares, called = [], 0
    places, types = adata.obsm["spatial"].copy(), adata.obs[column].astype(str).to_numpy()
    for seed in range(n_shuffled):
        rng = np.random.default_rng(seed)
        shuffled = places.copy()
        for kind in (left, right):
            cells = np.flatnonzero(types == kind)
            shuffled[cells] = places[rng.permutation(cells)]
        adata.obsm["spatial"] = shuffled
        tl.perturb(adata, model, **options, n_permutations=1000, seed=seed)
        shares.append(float((adata.uns["perturbation"]["table"]["p"] < 0.05).mean()))
        called += adata.uns["perturbation"]["n_called"]
    if n_shuffled:
        result["shuffled"] = {
            "times": n_shuffled, "share_of_p_below_05": float(np.mean(shares)), "calls": called,
            "by_time": shares,
        }  # fmt: skip
    return result


def attention_on_slide(path: Path, column: str, left: str, right: str, model: str) -> dict[str, Any]:
    """Return what controls explain of the attention between cells of a slide, and what is left."""
    adata = anndata.read_h5ad(path)
    tl.attention(adata, model, cell_type=column, left=left, right=right)
    found = adata.uns["attention"]
    tested = found["table"]["p"].dropna()
    return {
        "left": left, "right": right, "pairs_of_cells": found["n_cell_pairs"], "n_tested": found["n_tested"],
        "n_called": found["n_called"], "share_of_p_below_05": float((tested < 0.05).mean()),
        "controls": found["controls"].round(4).astype(object).where(found["controls"].notna(), None).to_dict("records"),
        "median_rank_correlation_with_deletion": float(found["agreement"]["rho"].median()),
        "of_position_alone": float(found["agreement"]["rho_position"].median()),
    }  # fmt: skip


def fifty_genes(names: list[str], n_pairs: int) -> anndata.AnnData:
    """Return cells of 50 genes each, two for each pair."""
    rng = np.random.default_rng(0)
    counts = np.zeros((2 * n_pairs, len(names)), dtype=np.float32)
    for row in counts:
        row[rng.permutation(len(names))[:50]] = rng.poisson(2.0, 50) + 1
    adata = anndata.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=names))
    for kind, name in CONTEXT.items():
        adata.obs[kind] = name
    return adata


def speed(model: SpatialFormer, n_pairs: int) -> dict[str, Any]:
    """Return the time of all singles and interactions, beside one forward pass of one sequence for a gene pair."""
    names = [name for name in model.vocabulary.tokens if not name.startswith("<")]
    adata = fifty_genes([name for name in names if model.vocabulary.look_up([name]).matched][:300], n_pairs)
    left, right = np.arange(n_pairs), np.arange(n_pairs, 2 * n_pairs)
    wanted = None
    if not model.compares_states:
        rng = np.random.default_rng(1)
        wanted = rng.random((adata.n_vars, adata.n_vars)) < 0.125
    next(model.perturb_pairs(adata, left[:1], right[:1], wanted=wanted))
    started, busy = time.perf_counter(), time.process_time()
    scored = sum(
        int(np.isfinite(pair.interaction).sum()) for pair in model.perturb_pairs(adata, left, right, wanted=wanted)
    )
    seconds, processor = time.perf_counter() - started, time.process_time() - busy
    # As published: a pair of genes is one pass of one sequence, by the network as it is trained.
    one_by_one = model.tokeniser(_counts(model, adata))
    n_passes = 200
    with torch.inference_mode():
        begun, began = time.perf_counter(), time.process_time()
        for number in range(n_passes):
            pair = number % n_pairs
            if model.compares_states:
                states = [
                    model.network.encode(one_by_one.batch(np.array([cell])))[:, 0] for cell in (pair, pair + n_pairs)
                ]
                model.network.pair_logits_of_cells(*states)
            else:
                model.network.pair_logits(
                    model.network.encode(one_by_one.pair_batch(np.array([pair]), np.array([pair + n_pairs])))
                )
        passes, own = (time.perf_counter() - begun) / n_passes, (time.process_time() - began) / n_passes
    singles = n_pairs * 100
    answers = scored + singles
    return {
        "pairs_of_cells": n_pairs, "gene_pairs_scored": scored, "seconds": seconds, "processor_seconds": processor,
        "gene_pairs_a_second": answers / seconds,
        "published_passes_a_second": 1 / passes,
        "times_published": answers / seconds * passes, "times_published_processor": answers / processor * own,
        "published_hours_for_all": n_pairs * 2500 * passes / 3600,
    }  # fmt: skip


def _counts(model: SpatialFormer, adata: anndata.AnnData) -> Any:
    from spaf_model import CellSource, ReadingOptions

    return CellSource(adata, model.vocabulary, ReadingOptions()).read()


def joint_of_small_sizes() -> SpatialFormer:
    """Return a model of the sizes of the preset small, with random weights: time does not depend on them."""
    vocabulary = Vocabulary.build(
        [f"GENE{gene}" for gene in range(313)], scale=np.ones(313), **{kind: (name,) for kind, name in CONTEXT.items()}
    )
    config = SpatialFormerConfig(width=64, n_layers=2, n_heads=2, conv_kernel=9, colocalization_rank=32)
    model = SpatialFormer(config, vocabulary, seed=0)
    model.network.eval()
    return model


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--column", default="type")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar=("A", "B"))
    parser.add_argument("--joint", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="Default: all; the others are kept as they were.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1_000)
    parser.add_argument("--shuffled", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = earlier_results("perturbation")
    results["machine"] = describe("spaf-analysis", "spaf-model", "numpy", "scipy", "torch")
    for part in arguments.parts or PARTS:
        for name, found in measured(part, arguments):
            print(name, found, flush=True)
            results[name] = found
        if arguments.write:  # what was measured is kept if a later part is cut off
            write_results("perturbation", results)


def measured(part: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Yield the name and the result of each measurement of a part; nothing where its data are not named."""
    if part == "planted":
        sets = [
            planted(n, correlation, arguments.seeds * (4 if n == 400 else 1), arguments.first_seed)
            for n in (100, 200, 400, 800)  # more of 400, where there are calls and misses
            for correlation in (0.5, 0.7, 0.9)
        ]
        yield part, sets
        calls, false = (sum(each[name] for each in sets) for name in ("calls", "false_calls"))
        yield "false_calls_of_all", false / max(calls, 1)
    if part == "types_alone":
        yield part, types_alone(4 * arguments.seeds, arguments.first_seed)
    if part == "speed":
        joint = SpatialFormer.from_pretrained(arguments.joint) if arguments.joint else joint_of_small_sizes()
        starter = SpatialFormer.from_pretrained("starter-1")
        yield part, {"separate": speed(starter, 100), "joint": speed(joint, 100)}
    if part == "slide" and arguments.slide:
        found = {"starter-1": [
            on_slide(arguments.slide, arguments.column, *types, "starter-1", 0 if number else arguments.shuffled)
            for number, types in enumerate(arguments.pair)
        ]}  # fmt: skip
        if arguments.joint:  # one sequence a gene pair takes minutes: the last two types alone
            types = arguments.pair[-1]
            found["small"] = [on_slide(arguments.slide, arguments.column, *types, str(arguments.joint), 0)]
        yield part, found
    if part == "attention" and arguments.slide and arguments.joint:
        yield (
            part,
            [
                attention_on_slide(arguments.slide, arguments.column, *types, str(arguments.joint))
                for types in (arguments.pair[0], arguments.pair[-1])
            ],
        )


if __name__ == "__main__":
    main()

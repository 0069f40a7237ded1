"""Tables of ``docs/choosing.md``, made from ``benchmarks/results``, so that no figure there is typed."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def result_tables(results: Path) -> dict[str, str]:
    """Return each table in Markdown, by name."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((results / f"{name}.json").read_text(encoding="utf-8"))

    return {
        "place": place(read("tissue")["slides"]),
        "starter": starter(read("starter2")["pairs"]),
        "niches": niches(read("niches")["regions"]),
        "annotation": annotation(read("annotate")["tables"]),
        "fine_tuning": fine_tuning(read("finetuning")["tables"]),
        "integration": integration(read("integrate")["tables"]),
        "deconvolution": deconvolution(read("deconvolution")["pair"]),
        "imputation": imputation(read("imputation")),
        "gene_relations": gene_relations(read("perturbation"), read("gene_pairs")["real"]),
        "cost": cost(read("tissue_model")["cells_x_genes"]),
    }


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; the first column is text, the others stand to the right."""
    columns = list(columns)
    lines = [columns, [":--", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def said(low: float, high: float, *, more_is_better: bool = True) -> str:
    """Return the verdict that follows from the interval of a difference to a baseline."""
    if not more_is_better:
        low, high = -high, -low
    return "wins" if low > 0 else "loses" if high < 0 else "ties"


def interval(value: float, low: float, high: float) -> str:
    """Return a difference with its interval and the verdict."""
    return f"{value:+z.3f} ({low:+.3f} to {high:+.3f}), {said(low, high)}"


def place(slides: Mapping[str, Any]) -> str:
    """The own-tissue model beside principal components of the judged tissue."""
    rows = []
    for name, slide in slides.items():
        of = slide["rows"]
        joint = of["tissue, seed 0: joint"]
        shown = [of[row]["auroc"] for row in ("z-scored PCA", "Pearson PCA", "neighbours: place")] + [joint["auroc"]]
        less = joint["less z-scored PCA"]
        rows.append(
            [name, *(f"{score['far']:.3f} / {score['hard']:.3f}" for score in shown)]
            + [interval(*less["far"]), interval(*less["hard"])]
        )
    columns = ["slide and held-out end", "z-scored PCA", "Pearson PCA", "`neighbours`, place", "`tissue`, joint"]
    return markdown([*columns, "`tissue` less z-scored PCA, far", "hard"], rows)


def starter(parts: Mapping[str, Any]) -> str:
    """A model of the starter's recipe on tissue that it did not see, beside components of that tissue."""
    rows = []
    for name, part in parts.items():
        of, joint = part["rows"], part["rows"]["starter, joint"]
        shown = [of[row]["auroc"]["far"] for row in ("z-scored PCA", "Pearson PCA", "starter, joint")]
        rows.append(
            [name.replace("_", " "), f"{part['n_cells']:,}", *(f"{score:.3f}" for score in shown)]
            + [interval(*joint["less z-scored PCA"]["far"]), interval(*joint["less Pearson PCA"]["far"])]
        )
    columns = ["tissue left out", "cells or spots", "z-scored PCA", "Pearson PCA", "starter, joint"]
    return markdown([*columns, "starter less z-scored PCA", "starter less Pearson PCA"], rows)


def niches(regions: Mapping[str, Any]) -> str:
    """Niches against regions that people drew."""
    words = {"better": "wins", "tied": "ties", "worse": "loses", "baseline": "the baseline"}
    names = list(regions)
    rows = []
    for method in regions[names[0]]["rows"]:
        cells = []
        for name in names:
            row = regions[name]["rows"][method]
            cells += [f"{row['ari']:.3f} ({row['ari_low']:.3f} to {row['ari_high']:.3f})", words[row["ari_verdict"]]]
        rows.append([method, *cells])
    return markdown(["method", *(column for name in names for column in (f"{name}, ARI", "verdict"))], rows)


def annotation(tables: Mapping[str, Any]) -> str:
    """`annotate` with its choice of method, beside each method."""
    rows = []
    for name, table in tables.items():
        score = {row["score"]: row["macro_f1"] for row in table["scores"]}
        less = {row["baseline"]: row for row in table["differences"]}
        others = ["log counts", "PCA", "k-NN", "embedding"]
        rows.append([name, f"{score['auto']:.3f}", *(f"{score[other]:.3f}" for other in others)])
        for other in ("log counts", "PCA"):
            row = less[other]
            rows[-1].append(interval(row["macro_f1"], row["macro_f1_low"], row["macro_f1_high"]))
    columns = ["reference and held-out part", "`auto`", "log counts", "PCA", "k-NN", "embedding alone"]
    return markdown([*columns, "`auto` less log counts", "`auto` less PCA"], rows)


def fine_tuning(tables: Mapping[str, Any]) -> str:
    """`finetune --task labels` beside a regression on log counts."""
    rows = []
    for name, table in tables.items():
        if "chosen" not in table:  # of pairs, or of other methods than the default
            continue
        scores, less = table["scores"], table["differences"]["log counts, logistic regression"]
        shown = ["fine-tuned model", "log counts, logistic regression", "PCA, logistic regression"]
        shown += ["probe of the embedding alone", "probe of random weights"]
        rows.append([name, *(f"{scores[row][0]:.3f}" for row in shown), interval(*less[:3])])
    columns = ["table, held out", "fine-tuned", "log counts", "PCA", "embedding alone", "random weights"]
    return markdown([*columns, "fine-tuned less log counts"], rows)


def integration(tables: Mapping[str, Any]) -> str:
    """Embeddings and baselines of `integrate`."""
    rows = []
    for name, table in tables.items():
        verdicts = {
            baseline: {row["method"]: row["verdict"] for row in table["overall"] if row["baseline"] == baseline}
            for baseline in ("PCA", "PCA + Harmony")
        }
        for method, score in table["scores"].items():
            shown = [f"{score[metric]:z.3f}" for metric in ("nmi", "ari", "purity", "cilisi")]
            rows.append([f"{name}: {method}", *shown, *(of.get(method, "-") for of in verdicts.values())])
    return markdown(["cells, embedding", "NMI", "ARI", "purity", "CiLISI", "beside PCA", "beside PCA + Harmony"], rows)


def deconvolution(pair: Mapping[str, Any]) -> str:
    """Spots of a real section against the cells of an imaging run of the same block."""
    rows = []
    base = next(row for row in pair["profiles"] if row["method"] == "frequencies of the reference")
    for row in pair["profiles"]:
        shown = [row["method"], f"{row['rmse']:.3f}", f"{row['pearson']:z.3f}"]
        shown.append("-" if row is base else f"{row['rmse'] - base['rmse']:+.3f}")
        low, high = row["rmse_less_poisson"]
        verdict = "the baseline" if row["method"] == "poisson" else said(low, high, more_is_better=False)
        rows.append([*shown, verdict])
    columns = ["method", "RMSE", "correlation", "RMSE less that of the reference's frequencies"]
    return markdown([*columns, "beside `poisson`, by RMSE"], rows)


def imputation(cases: Mapping[str, Any]) -> str:
    """What `impute` chooses, beside each single way."""
    titles = {
        "halves": "one half of a section by the other",
        "panel": "imaging by dissociated cells of another donor",
        "patient": "spots of a patient by three others",
        "outside": "genes outside the panel, against spots of Visium",
        "outside_without_depth": "the same, `--without-depth`",
    }
    ways = ["knn", "spage", "ridge", "ridge-200", "kernel"]
    rows = []
    for case, title in titles.items():
        found = cases[case]
        best = max(ways, key=found["pearson"].__getitem__)
        shown = [f"{found['pearson'][way]:.3f}" for way in ("auto", *ways)]
        rows.append([title, f"{found['genes']:,}", *shown, f"{interval(*found['auto_less'][best])} ({best})"])
    return markdown(["", "genes", "`auto`", *(f"`{way}`" for way in ways), "`auto` less the best of them"], rows)


def gene_relations(perturbation: Mapping[str, Any], pairs: Mapping[str, Any]) -> str:
    """What is left of relations between genes on real tissue, after the controls."""
    rows = []
    for model, cases in perturbation["slide"].items():
        for case in cases:
            where = f"{case['left']}, {case['right']}"
            rows.append([f"interactions, `{model}`: {where}", f"{case['n_tested']:,}", f"{case['n_called']:,}"])
    for case in perturbation["attention"]:
        where = f"{case['left']}, {case['right']}"
        rows.append([f"attention: {where}", f"{case['n_tested']:,}", f"{case['n_called']:,}"])
    type_ = pairs["type"]
    rows.append(["gene pair markers of types, beyond their genes", f"{type_['n_tested']:,}", f"{type_['n_called']:,}"])
    rows.append(["the same, without that control", f"{type_['n_tested']:,}", f"{type_['n_presence']:,}"])
    return markdown(["asked on the breast window", "tested", "called at FDR .05"], rows)


def cost(sizes: Mapping[str, Any]) -> str:
    """Processor time of the own-tissue model beside that of principal components."""
    rows = []
    for size, steps in sizes.items():
        seconds = [f"{steps[step]['core_seconds']:.1f}" for step in ("pca", "neighbours", "tissue", "embed")]
        shown = " x ".join(f"{int(side):,}" for side in size.split("x"))
        rows.append([shown, *seconds, f"{steps['tissue']['peak_rss_gb']:.1f}"])
    columns = ["cells x genes", "PCA, s", "`neighbours`, s", "`tissue`, s", "embedding, s"]
    return markdown([*columns, "peak memory, GB"], rows)

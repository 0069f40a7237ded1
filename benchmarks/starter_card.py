"""Write the card of the starter model from the results of ``starter_evaluate.py``.

python benchmarks/starter_card.py MODEL
"""

import json
import sys
from pathlib import Path
from typing import Any

SCORES = {
    "model": "starter-1, pair probability",
    "embedding cosine": "starter-1, cosine of embeddings",
    "PCA cosine": "PCA (30), cosine",
    "PCA logistic": "PCA (30), logistic regression on pairs",
    "PCA pair network": "PCA (50), trained pair network",
}
PARTS = {
    "held out": "all held-out cells of the tables",
    "dense_window": "dense window beyond y = 4500",
    "region_b": "region_b beyond x = 6500",
    "example": "the SpatialData example, same section",
    "lung": "lung window",
}
NEGATIVES = {"easy": "far negatives", "hard": "hard negatives"}


def row_of(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any] | None:
    """Return the row with some values, or None."""
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def value(row: dict[str, Any] | None, measure: str = "auroc", digits: int = 3) -> str:
    """Return a value with its interval, if it has one."""
    if row is None:
        return "-"
    low, high = row[f"{measure}_low"], row[f"{measure}_high"]
    known = low is not None and low == low
    return f"{row[measure]:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if known else "")


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def pairs_at_30(case: dict[str, Any]) -> list[str]:
    """Return the table of scores at 30 um."""
    rows = case["cell_pairs"]["scores"]
    found = [
        [name, *(value(row_of(rows, score=score, negatives=kind, radius=30.0)) for kind in NEGATIVES)]
        for score, name in SCORES.items()
    ]
    return table(["score", *NEGATIVES.values()], found)


def verdict(case: dict[str, Any]) -> list[str]:
    """Say at 30 um which baselines the pair probability beats, and whether the intervals overlap."""
    lines = []
    judged = case["cell_pairs"]
    for negatives, name in NEGATIVES.items():
        here = {"negatives": negatives, "radius": 30.0}
        own = row_of(judged["scores"], score="model", **here)
        for baseline in ("PCA cosine", "PCA logistic", "PCA pair network"):
            other = row_of(judged["scores"], score=baseline, **here)
            difference = row_of(judged["differences"], score="model", baseline=baseline, **here)
            if own is None or other is None or difference is None:
                continue
            apart = "do not overlap" if own["auroc_low"] > other["auroc_high"] else "overlap"
            lines.append(
                f"- {name}, minus {SCORES[baseline]}: {value(difference)} on the same resampled tissue: "
                f"{difference['verdict']}; the two intervals {apart}."
            )
    return lines


def other_radii(case: dict[str, Any]) -> list[str]:
    """Return AUROC and AUPRC at every radius."""
    scores = case["cell_pairs"]["scores"]
    rows = []
    for radius in sorted({row["radius"] for row in scores}):
        for score in ("model", "PCA cosine", "PCA logistic", "PCA pair network"):
            values = [
                f"{row_of(scores, score=score, radius=radius, negatives=kind)[measure]:.3f}"  # type: ignore[index]
                for measure in ("auroc", "auprc")
                for kind in NEGATIVES
            ]
            rows.append([f"{radius:g} um", SCORES[score], *values])
    return table(["radius", "score", "AUROC far", "AUROC hard", "AUPRC far", "AUPRC hard"], rows)


def masked_genes(cases: list[dict[str, Any]]) -> list[str]:
    """Return accuracy and perplexity of the parts."""
    rows = [
        [PARTS[case["part"]], f"{row['n']:,}", row["score"], value(row, "accuracy"), value(row, "perplexity", 1)]
        for case in cases
        for row in case["masked_genes"]
    ]
    return table(["part", "hidden genes", "by", "accuracy", "perplexity"], rows)


def colocalization(cases: list[dict[str, Any]]) -> list[str]:
    """Return AUROC and AUPRC of gene pairs of the parts that have transcripts."""
    lines = []
    for case in cases:
        judged = case["colocalization"]
        if judged is None:
            continue
        lines += [
            f"**{PARTS[case['part']]}** ({case['n_cells']} cells; {judged['colocalized_share']:.1%} of the gene pairs "
            "are co-localised, which is chance for AUPRC)",
            "",
            *table(
                ["by", "AUROC", "AUPRC"], [[row["score"], value(row), value(row, "auprc")] for row in judged["scores"]]
            ),
            "",
        ]
        rows = judged["scores"]
        own, best = rows[0], max(rows[1:], key=lambda row: row["auroc"])
        if own["auroc_high"] < best["auroc_low"]:
            lines += [f"The head is far behind `{best['score']}`: do not use it.", ""]
    return lines


def main() -> None:
    """Write MODEL/card.md."""
    model = Path(sys.argv[1])
    results = json.loads((Path(__file__).parent / "results" / "starter.json").read_text())
    config = json.loads((model / "config.json").read_text())["config"]
    cases = {case["part"]: case for case in results["cases"]}
    whole, unknown = cases["held out"], cases["held out, context unknown"]
    tables = [case for part, case in cases.items() if part in ("held out", "dense_window", "region_b")]
    windows = [case for part, case in cases.items() if part in ("example", "lung")]
    half = {kind: row_of(whole["cell_pairs"]["operating_points"], negatives=kind, radius=30.0) for kind in NEGATIVES}
    without = [
        f"{row_of(unknown['cell_pairs']['scores'], score='model', negatives=kind, radius=30.0)['auroc']:.3f}"  # type: ignore[index]
        for kind in NEGATIVES
    ]
    lines = [
        "# starter-1",
        "",
        f"A small SpatialFormer ({results['n_parameters']:,} weights) of one section of breast cancer, for a first",
        "look. It reads each cell alone: `embed` gives states that neighbours share, `embed_pairs` the probability",
        "that two cells are within 30 um.",
        "",
        "## Data and licence",
        "",
        "- 10x Genomics, *Xenium FFPE Human Breast Cancer*, section Rep 1 (Janesick et al. 2023, Nature Communications",
        "  14, 8353), panel of 313 genes; CC BY 4.0. Four excerpts of its cells, three of them thinned to a third,",
        "  and a window of 1,084 cells with transcripts. Cells with 30 transcripts or more.",
        "- The weights are under the MIT licence of this package; give credit to 10x Genomics for the data.",
        "- Held out: the dense window beyond y = 4500 um, region_b beyond x = 6500 um, and x 1520-1711, y 2750-2912.",
        "  No training cell of any excerpt is within 150 um of a held-out place.",
        f"- Training part: {whole['n_fitted_cells']:,} cells; held out and judged here: {whole['n_cells']:,} cells.",
        "- Nothing was chosen on the held-out places; the weights are those of the last step.",
        "",
        "## Neighbours within 30 um, AUROC with 95 % intervals",
        "",
        f"Intervals from resampled tiles of tissue ({whole['cell_pairs']['n_tiles']} tiles in the whole). Far",
        "negatives lie beyond 150 um, hard ones at 80 to 150 um, each with an anchor of a positive pair. All",
        "baselines are fitted on the training part (a third of it for single tables and windows); the number of",
        "epochs of the pair network is chosen inside it.",
        "",
    ]
    for case in tables:
        lines += [f"**{PARTS[case['part']]}** ({case['n_cells']:,} cells)", "", *pairs_at_30(case), ""]
    lines += ["In the whole, at 30 um:", "", *verdict(whole), ""]
    lines += [
        "The aim was intervals apart from those of both PCA cosine and the pair network. Where a line above says",
        "`overlap`, it is not reached; `tied` means that the interval of the difference holds 0.",
        "",
        f"With every context given as `unknown`: {without[0]} and {without[1]}.",
        "",
        "## Other radii and average precision",
        "",
        "All held-out cells of the tables; classes balanced.",
        "",
        *other_radii(whole),
        "",
        "## Probabilities",
        "",
        "At a probability of one half (neighbours and others equally frequent): sensitivity "
        f"{value(half['easy'], 'sensitivity', 2)}, specificity {value(half['easy'], 'specificity', 2)} against far and "
        f"{value(half['hard'], 'specificity', 2)} against hard negatives; expected calibration error, both kinds of "
        f"negatives together, {value(whole['cell_pairs']['calibration'][0], 'ece')}.",
        "",
        "## Masked genes",
        "",
        "15 % of the genes of held-out cells were hidden.",
        "",
        *masked_genes([whole, *windows]),
        "",
    ]
    if windows:
        lines += [
            "## Co-localised genes",
            "",
            "Trained on the 1,084 cells with transcripts alone; judged on cells of windows that are held out.",
            "",
            *colocalization(windows),
            "## Two small windows with transcripts",
            "",
        ]
    for case in windows:
        judged = case["cell_pairs"]
        lines += [f"**{PARTS[case['part']]}** ({case['n_cells']} cells)", ""]
        if "shared_genes" in case:
            lines += [
                f"Another tissue and panel: {case['shared_genes']} of its {case['genes']} genes are among those of the",
                "model; baselines are fitted on the same genes of the breast cells.",
                "",
            ]
        if judged is None:
            lines += ["Too small for neighbours with negatives.", ""]
            continue
        counts = {kind: row_of(judged["scores"], score="model", negatives=kind, radius=30.0) for kind in NEGATIVES}
        known = ", ".join(
            f"{row['n_positives'] if row else 0} pairs against {NEGATIVES[kind]}" for kind, row in counts.items()
        )
        lines += [
            f"At 30 um: {known}; {judged['n_tiles']} tiles of {judged['tile_um']:.0f} um. Far negatives can only lie",
            "in opposite corners of so small a window, and few tiles make rough intervals: far pairs say little here.",
            "",
            *pairs_at_30(case),
            "",
        ]
    lines += [
        "## What it is not good for",
        "",
        "- Anything but human breast on this Xenium panel: one section, one donor, one instrument, 313 genes. Other",
        "  panels lose the genes that are not among them; other tissues have to be given as `unknown`.",
        "- Deciding on single pairs of cells: against hard negatives it is right a little more often than not.",
        "- Integration of donors or platforms, annotation: not measured.",
        f"- Genes beyond the {config['max_genes']} highest-ranked of a cell are not read.",
        "",
        "The recipe is `benchmarks/starter.md` of the repository.",
        "",
    ]
    (model / "card.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()

"""Write the card of the starter model from the results of ``starter_evaluate.py``.

python benchmarks/starter_card.py MODEL
"""

import json
import sys
from pathlib import Path
from typing import Any

ORDER = ("model", "embedding cosine", "PCA cosine", "PCA logistic", "PCA pair network")
NAMES = {
    "model": "starter, pair probability",
    "embedding cosine": "starter, cosine of embeddings",
    "PCA cosine": "PCA (30), cosine",
    "PCA logistic": "PCA (30), logistic regression on pairs",
    "PCA pair network": "PCA (50), trained pair network",
}
PARTS = {
    "held out": "both held-out parts",
    "dense_window": "dense window beyond y = 4500",
    "region_b": "region_b beyond x = 6500",
}


def row_of(case: dict[str, Any], score: str, negatives: str, radius: float) -> dict[str, Any]:
    """Return the row of a score."""
    return next(
        row for row in case["scores"] if (row["score"], row["negatives"], row["radius"]) == (score, negatives, radius)
    )


def cell(row: dict[str, Any], measure: str = "auroc") -> str:
    """Return a value with its interval."""
    return f"{row[measure]:.3f} ({row[f'{measure}_low']:.3f}-{row[f'{measure}_high']:.3f})"


def verdict(case: dict[str, Any]) -> list[str]:
    """Say at 30 um which baselines the pair probability beats, and whether the intervals overlap."""
    lines = []
    for negatives, name in (("easy", "far negatives"), ("hard", "hard negatives")):
        own = row_of(case, "model", negatives, 30.0)
        for baseline in ("PCA cosine", "PCA pair network"):
            other = row_of(case, baseline, negatives, 30.0)
            difference = next(
                row
                for row in case["differences"]
                if (row["baseline"], row["negatives"], row["radius"]) == (baseline, negatives, 30.0)
            )
            apart = "do not overlap" if own["auroc_low"] > other["auroc_high"] else "overlap"
            lines.append(
                f"- {name}, against {NAMES[baseline]}: {difference['auroc']:+.3f} on the same resampled tissue "
                f"({difference['auroc_low']:+.3f} to {difference['auroc_high']:+.3f}); the two intervals {apart}."
            )
    return lines


def main() -> None:
    """Write MODEL/card.md."""
    model = Path(sys.argv[1])
    results = json.loads((Path(__file__).parent / "results" / "starter.json").read_text())
    whole = results["cases"][0]
    genes = results["masked_genes"]
    lines = [
        "# starter",
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
        f"- Training part: {results['training_cells']:,} cells; held out and judged here: {whole['cells']:,} cells.",
        "- Nothing was chosen on the held-out places; the weights are those of the last step.",
        "",
        "## Neighbours within 30 um, AUROC with 95 % intervals",
        "",
        f"Intervals from resampled tiles of tissue ({whole['tiles']} tiles in the whole). Far negatives lie beyond",
        "150 um, hard ones at 80 to 150 um, each with an anchor of a positive pair. The pair network saw all",
        "neighbours of the training part; it got the epoch that is best on the held-out part itself.",
        "",
    ]
    for case in results["cases"]:
        lines += [
            f"**{PARTS[case['part']]}** ({case['cells']:,} cells)",
            "",
            "| score | far negatives | hard negatives |",
        ]
        lines += ["| --- | --- | --- |"]
        for score in ORDER:
            far, hard = (cell(row_of(case, score, negatives, 30.0)) for negatives in ("easy", "hard"))
            lines.append(f"| {NAMES[score]} | {far} | {hard} |")
        lines.append("")
    lines += ["In the whole, at 30 um:", "", *verdict(whole), ""]
    lines += [
        "The aim was intervals apart from those of both PCA cosine and the pair network. Where a line above says",
        "`overlap`, it is not reached; a difference whose own interval holds 0 is none that this tissue can show.",
        "",
    ]
    lines += ["## Other radii and average precision", "", "Both held-out parts; classes balanced.", ""]
    lines += [
        "| radius | score | AUROC far | AUROC hard | AUPRC far | AUPRC hard |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for radius in sorted({row["radius"] for row in whole["scores"]}):
        for score in ("model", "PCA cosine", "PCA pair network"):
            values = [
                f"{row_of(whole, score, negatives, radius)[measure]:.3f}"
                for measure in ("auroc", "auprc")
                for negatives in ("easy", "hard")
            ]
            lines.append(f"| {radius:g} um | {NAMES[score]} | {' | '.join(values)} |")
    half = whole["threshold_half"]
    lines += [
        "",
        "At a probability of one half (neighbours and others equally frequent): sensitivity "
        f"{half['easy']['sensitivity']:.2f}, specificity {half['easy']['specificity']:.2f} against far and "
        f"{half['hard']['specificity']:.2f} against hard negatives; expected calibration error "
        f"{half['easy']['calibration_error']:.3f} and {half['hard']['calibration_error']:.3f}.",
        "",
        "## Masked genes, held-out cells",
        "",
        f"Of {genes['hidden_genes']:,.0f} hidden genes {genes['accuracy']:.3f} were found (unigram model: "
        f"{genes['unigram_accuracy']:.3f}); perplexity {genes['perplexity']:.1f} (unigram model: "
        f"{genes['unigram_perplexity']:.1f}).",
        "",
        "The co-localisation head was trained on the 1,084 cells with transcripts alone and has not been judged on",
        "held-out ones: take no conclusion from it.",
        "",
        "## What it is not good for",
        "",
        "- Anything but human breast on this Xenium panel: one section, one donor, one instrument, 313 genes. Other",
        "  panels lose the genes that are not among them; other tissues have to be given as `unknown`.",
        "- Deciding on single pairs of cells: against hard negatives it is right a little more often than not.",
        "- Integration of donors or platforms, annotation, gene-gene co-localisation: not measured.",
        "- Genes beyond the 48 highest-ranked of a cell are not read.",
        "",
        "The recipe is `benchmarks/starter.md` of the repository.",
        "",
    ]
    (model / "card.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()

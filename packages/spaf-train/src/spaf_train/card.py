"""The card of a model: what it was trained on and how well it did."""

from __future__ import annotations

from pathlib import Path

from spaf_data import Corpus
from spaf_train.config import PretrainConfig

_TITLES = {
    "loss": "Sum of the losses",
    "loss_masked_genes": "Masked genes, cross-entropy (nats)",
    "accuracy_masked_genes": "Masked genes, accuracy",
    "loss_colocalization": "Gene co-localisation, focal loss",
    "auroc_colocalization": "Gene co-localisation, AUROC over gene pairs of a cell",
    "loss_pairs": "Cell pairs, weighted cross-entropy (nats)",
    "auroc_pairs": "Cell pairs, AUROC of neighbours against hard and easy negatives",
}


def model_card(corpus: Corpus, config: PretrainConfig, best: dict[str, float]) -> str:
    """Return a model card in Markdown.

    Parameters
    ----------
    corpus
        What the model was trained on.
    config
        How.
    best
        Metrics of the validation that chose the weights, with its step.
    """
    sampling = config.sampling
    context = {
        kind: ", ".join(sorted({str(slide[kind]) for slide in corpus.slides.values()}))
        for kind in ("species", "tissue", "condition", "assay")
    }
    lines = [
        "# SpatialFormer",
        "",
        "## Data",
        "",
        f"- Slides: {', '.join(corpus.slides)} ({len(corpus.genes)} genes)",
        *(f"- {kind.capitalize()}: {names}" for kind, names in context.items()),
        *(f"- Split `{split}`: {_size(corpus, split)}" for split in ("train", "validation")),
        "- The two splits share no cell, and no cell of one has a neighbour in the other.",
        "- Licence: that of the data; training adds no terms of its own.",
        "",
        "## Training",
        "",
        f"- Objectives: {', '.join(config.objectives.enabled)}; input: {sampling.input}",
        f"- {config.run.steps} steps; weights of step {best['step']:.0f}, the best on the validation split by "
        f"`{config.run.best_metric}`",
        f"- Seed {config.seed}; the whole configuration is in `config.toml` of the run",
        "",
        "## Metrics on the validation split",
        "",
        f"The weights were chosen on this split, so the figures lean to the good side. Up to "
        f"{config.run.validation_inputs} inputs.",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {title} | {best[name]:.4f} |" for name, title in _TITLES.items() if name in best),
        "",
        "## Limits",
        "",
        "Trained on the tissues and the gene panel above, and validated on other places of the same slides. Nothing",
        "here says how it does on another donor, tissue, panel or instrument; measure that before relying on it.",
        "",
    ]
    if config.gene_embeddings.path is not None:
        trained = "trained on" if config.gene_embeddings.trainable else "kept as they were"
        note = f"- Began with the gene embeddings `{Path(config.gene_embeddings.path).name}`, {trained}"
        lines.insert(lines.index("## Metrics on the validation split") - 1, note)
    if "pairs" in config.objectives.enabled:
        note = (
            f"- Negatives for each pair of neighbours: {sampling.hard_negatives} at {sampling.hard_min:g} to "
            f"{sampling.hard_max:g} um, {sampling.easy_negatives} beyond {sampling.easy_min:g} um"
        )
        lines.insert(lines.index("## Metrics on the validation split") - 1, note)
    return "\n".join(lines)


def _size(corpus: Corpus, split: str) -> str:
    refs = corpus.block_refs(split)
    return f"{sum(ref.n_owned for ref in refs):,} cells, {sum(ref.n_pairs for ref in refs):,} pairs of neighbours"

"""The card of a model: what it was trained on and how well it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spaf_model import CONTEXT_KINDS, family_of
from spaf_train.stream.contexts import UNKNOWN
from spaf_train.trainer.verdicts import table_of

if TYPE_CHECKING:
    from spaf_data import Corpus
    from spaf_train.pretraining.config import PretrainConfig


def model_card(
    corpus: Corpus,
    config: PretrainConfig,
    best: dict[str, float],
    *,
    left_out: Mapping[str, str] = MappingProxyType({}),
    not_learnt: Mapping[str, str] = MappingProxyType({}),
    notes: Sequence[str] = (),
    verdicts: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    nothing_learnt: str = "",
) -> str:
    """Return a model card in Markdown.

    Parameters
    ----------
    corpus
        What the model was trained on.
    config
        How.
    best
        Metrics of the validation that chose the weights, with its step.
    left_out
        Objectives that the data could not be asked, and why.
    not_learnt
        A sentence for each objective of which nothing was learnt.
    notes
        More that is to be said of how it was trained.
    verdicts
        How each objective stands beside chance and its baseline.
    nothing_learnt
        A sentence where that is all of them.
    """
    sampling = config.sampling.following(corpus.distances)
    context = {
        kind: ", ".join(sorted({str(slide[kind]) for slide in corpus.slides.values()}))
        for kind in ("species", "tissue", "condition", "assay")
    }
    lines = [
        f"# {family_of(config.family).__name__}",
        "",
        *([f"**{nothing_learnt}**", ""] if nothing_learnt else []),
        "## Data",
        "",
        f"- Slides: {', '.join(corpus.slides)} ({len(corpus.genes)} genes)",
        *(f"- {kind.capitalize()}: {names}" for kind, names in context.items()),
        *(f"- Split `{split}`: {_size(corpus, split)}" for split in ("train", "validation") if split in corpus.splits),
        "- The two splits share no cell, and no cell of one has a neighbour in the other.",
        "- Licence: that of the data; training adds no terms of its own.",
        "",
        "## Training",
        "",
        f"- Objectives: {', '.join(name for name in config.objectives.enabled if name not in left_out)}; "
        f"input: {sampling.input}",
        *(f"- Left out: {name}; {reason}" for name, reason in left_out.items()),
        f"- {config.run.steps} steps; weights of step {best['step']:.0f}, {_chosen(config)}",
        f"- Seed {config.seed}; the whole configuration is in `config.toml` of the run",
        *(f"- {note}" for note in notes),
        "",
        "## Metrics on the validation split",
        "",
        f"{_leaning(config)} Up to {config.run.validation_inputs} inputs.",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(
            f"| {title} | {best[name]:.4f} |"
            for name, title in _titles(config).items()
            if math.isfinite(best.get(name, math.nan))
        ),
        "",
        *_learnt(config, verdicts),
        "## Limits",
        "",
        *(f"- {sentence}" for sentence in not_learnt.values()),
        *([""] if not_learnt else []),
        f"Trained on the tissues and the gene panel above, and {_held_out(corpus)}",
        "It says nothing of other tissues, panels or instruments; measure that before relying on it.",
        *family_of(config.family).limits,
        "",
        *_never_seen(corpus, config),
    ]
    if config.gene_embeddings.path is not None:
        trained = "trained on" if config.gene_embeddings.trainable else "kept as they were"
        note = f"- Began with the gene embeddings `{Path(config.gene_embeddings.path).name}`, {trained}"
        lines.insert(lines.index("## Metrics on the validation split") - 1, note)
    for objective in config.objectives.make().values():
        for note in objective.card_notes(sampling.following(corpus.distances)):
            lines.insert(lines.index("## Metrics on the validation split") - 1, f"- {note}")
    return "\n".join(lines)


def _learnt(config: PretrainConfig, verdicts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    titles = {name: objective.title for name, objective in config.objectives.make().items()}
    return ["## What was learnt", "", *table_of(verdicts, titles), ""] if verdicts else []


def _titles(config: PretrainConfig) -> dict[str, str]:
    columns = {column.name: column.title for column in config.objectives.columns if column.validated}
    return {"loss": "Sum of the losses", **columns}


def _chosen(config: PretrainConfig) -> str:
    last = config.run.best_metric == "last"
    return "the last" if last else f"the best on the validation split by `{config.run.best_metric}`"


def _leaning(config: PretrainConfig) -> str:
    if config.run.best_metric == "last":
        return "Nothing was chosen on this split."
    return "The weights were chosen on this split, so the figures lean to the good side."


def _held_out(corpus: Corpus) -> str:
    """Say what validation was on: other slides, other places of the same slides, or both."""
    if "validation" not in corpus.splits:
        return "validated on nothing: the corpus has no such split."
    trained, judged = ({ref.slide for ref in corpus.block_refs(split)} for split in ("train", "validation"))
    whole, shared = sorted(judged - trained), sorted(judged & trained)
    unsaid = "Whether those are of other donors or animals the corpus does not say."
    if not shared:
        return f"validated on slides that were held out as a whole: {', '.join(whole)}. {unsaid}"
    places = "validated on other places of the same slides"
    if not whole:
        return f"{places}. How it does on another donor or animal is not known."
    return f"{places} ({', '.join(shared)}) and on slides that were held out as a whole: {', '.join(whole)}. {unsaid}"


def _never_seen(corpus: Corpus, config: PretrainConfig) -> list[str]:
    """Name the words of context that have a token and no training cell: what stands there is as random as it began."""
    trained = {ref.slide for ref in corpus.block_refs("train")}
    seen = {(kind, str(corpus.slides[slide][kind])) for slide in trained for kind in CONTEXT_KINDS}
    named = {(kind, str(slide[kind])) for slide in corpus.slides.values() for kind in CONTEXT_KINDS}
    named |= {(kind, name) for kind in CONTEXT_KINDS for name in getattr(config.vocabulary, kind)}
    words = ", ".join(f"{kind} {name!r}" for kind, name in sorted(named - seen) if name != UNKNOWN)
    return [f"Words of context without a training cell, whose tokens are untrained: {words}.", ""] if words else []


def _size(corpus: Corpus, split: str) -> str:
    refs = corpus.block_refs(split)
    return f"{sum(ref.n_owned for ref in refs):,} cells, {sum(ref.n_pairs for ref in refs):,} pairs of neighbours"

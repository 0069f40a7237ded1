"""Which objectives a corpus can answer: said, or left out, before the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from spaf_data import Corpus
from spaf_model import InputError
from spaf_train.pretraining.config import PretrainConfig

NO_GENE_PAIRS = "the corpus does not tell which genes lie together in its cells"


def askable(
    config: PretrainConfig, corpus: Corpus, *, skip_shards: Collection[str] = ()
) -> tuple[PretrainConfig, dict[str, str]]:
    """Return the configuration without the objectives that the training cells of a corpus cannot be asked.

    Co-localised genes are left out where nothing is known of them (tables without transcripts): trained all the same,
    the head would show a loss of 0 and have learnt nothing.

    Parameters
    ----------
    config
        Of the run.
    corpus
        The data.
    skip_shards
        Names of shards that are not read.

    Returns
    -------
    tuple
        The configuration to train by, and for each objective that was left out the reason.

    Raises
    ------
    InputError
        If nothing is left to train, a split has no pair of neighbours and pairs are the input, or the weights are to be
        chosen by what the validation split cannot tell.
    """
    objectives = config.objectives
    if config.sampling.input == "pairs":
        for split in ("train", "validation"):
            refs = [ref for ref in corpus.block_refs(split) if ref.shard not in skip_shards]
            if refs and not any(ref.n_pairs for ref in refs):
                radius = corpus.parameters.get("positive_radius")
                within = "" if radius is None else f" (within {radius:g} um)"
                raise InputError(
                    f"The corpus has no pair of neighbouring cells{within} in its split {split!r}; build it with a "
                    "larger radius or another split, or train on single cells: sampling.input=cells and "
                    "objectives.pairs.enabled=false."
                )
    if not objectives.colocalization.enabled:
        return config, {}
    known = {split: _knows_gene_pairs(corpus, split, skip_shards) for split in ("train", "validation")}
    chosen_by_it = config.run.best_metric in ("loss_colocalization", "auroc_colocalization")
    if chosen_by_it and not all(known.values()):
        split = "train" if not known["train"] else "validation"
        raise InputError(
            f"run.best_metric is {config.run.best_metric}, and no slide of the split {split!r} tells which genes lie "
            "together in its cells; choose another metric, such as loss."
        )
    if known["train"]:
        return config, {}
    if objectives.enabled == ["colocalization"]:
        raise InputError(
            f"There is nothing to train: of the objectives only colocalization is enabled, and {NO_GENE_PAIRS}."
        )
    left = dataclasses.replace(objectives, colocalization=dataclasses.replace(objectives.colocalization, enabled=False))
    return dataclasses.replace(config, objectives=left), {"colocalization": NO_GENE_PAIRS}


def _knows_gene_pairs(corpus: Corpus, split: str, skip_shards: Collection[str]) -> bool:
    slides = {ref.slide for ref in corpus.block_refs(split) if ref.shard not in skip_shards}
    return any(corpus.knows_gene_pairs(slide) for slide in slides)

"""Which objectives a corpus can answer: said, or left out, before the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING

from spaf_model import InputError
from spaf_train.stream.samplers import SAMPLERS

if TYPE_CHECKING:
    from spaf_data import Corpus
    from spaf_train.pretraining.config import PretrainConfig


def askable(
    config: PretrainConfig, corpus: Corpus, *, skip_shards: Collection[str] = ()
) -> tuple[PretrainConfig, dict[str, str]]:
    """Return the configuration without the objectives that the training cells of a corpus cannot be asked.

    Such as co-localised genes where nothing is known of them (tables without transcripts).

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
        If nothing is left to train, a split has no input of the kind that is drawn (no pair of neighbours), or the
        weights are to be chosen by what the validation split cannot tell.
    """
    SAMPLERS[config.sampling.input](config.sampling, corpus.distances).check(corpus, skip_shards)
    left_out: dict[str, str] = {}
    objectives = config.objectives
    for name, objective in objectives.make().items():
        unknown = {split: objective.unanswerable(corpus, split, skip_shards) for split in _splits(corpus)}
        reasons = [reason for reason in unknown.values() if reason]
        if reasons and config.run.best_metric in [column.name for column in objective.columns]:
            raise InputError(
                f"run.best_metric is {config.run.best_metric}, and {reasons[0]}; choose another metric, such as loss."
            )
        if not unknown["train"]:
            continue
        if objectives.enabled == [name]:
            raise InputError(
                f"There is nothing to train: of the objectives only {name} is enabled, and "
                f"{objective.left_out_because}."
            )
        left_out[name] = objective.left_out_because
        objectives = objectives.without(name)
    return dataclasses.replace(config, objectives=objectives), left_out


def _splits(corpus: Corpus) -> list[str]:
    return [split for split in ("train", "validation") if split in corpus.splits]

"""A pre-training run from a corpus to a model directory."""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import spaf_data
from spaf_data import Corpus, peak_rss_mb
from spaf_model import InputError, check_output, family_of
from spaf_train._options import flatten
from spaf_train._record import fingerprint, sweep_partial, versions, write_json, write_text
from spaf_train.objectives import OBJECTIVES
from spaf_train.pretraining.askable import askable
from spaf_train.pretraining.card import model_card
from spaf_train.pretraining.config import DEFAULT_FAMILY
from spaf_train.pretraining.continued import Continued, check_same_source, continued, open_config, read_source
from spaf_train.pretraining.gene_table import set_gene_table
from spaf_train.pretraining.linear_path import set_linear_path
from spaf_train.pretraining.vocabulary import vocabulary_from_corpus
from spaf_train.stream.loader import BadShardError, BatchStream
from spaf_train.trainer.checkpoint import Checkpoints, load_checkpoint, state_to_resume
from spaf_train.trainer.compiling import check_compiler
from spaf_train.trainer.distributed import Ranks, claimed, ranks
from spaf_train.trainer.divergence import TrainingDivergedError
from spaf_train.trainer.loop import Trainer
from spaf_train.trainer.reproducible import reproducible
from spaf_train.trainer.signals import StopRequest, stop_request
from spaf_train.trainer.tensorboard_log import check_tensorboard
from spaf_train.trainer.verdicts import nothing_learnt

if TYPE_CHECKING:
    from spaf_model import Model
    from spaf_train.pretraining.config import PretrainConfig

logger = logging.getLogger(__name__)

_OR_SKIP = "the same command with --skip-bad-shards leaves such shards out (add --resume where a run has begun)."

# Options that a run may change when it is continued.
_FREE = (
    "continue_from",  # the model itself counts, not where it lies
    "distributed.",
    "run.activation_checkpointing",
    "run.compile",
    "run.tensorboard",
    "run.peak_tflops",
    "run.workers",
)


@dataclasses.dataclass(frozen=True)
class PretrainResult:
    """How a run ended."""

    out: Path  # the folder of the run
    finished: bool  # False: it was asked to stop and saved its state
    step: int  # steps taken
    best: dict[str, float]  # metrics of the best validation, with its step; empty before the first
    skipped_shards: dict[str, str]  # names of the shards that were left out, and what is wrong with each
    left_out: dict[str, str]  # objectives that the data cannot be asked, and why
    not_learnt: dict[str, str]  # a sentence for each objective of which the best weights have learnt nothing
    # Of each objective: learnt or not, with its figures, chance and baseline.
    verdicts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    nothing_learnt: str = ""  # a sentence where that is all of them, with what to change; "" where something was learnt


def pretrain(
    config: PretrainConfig,
    corpus: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    skip_bad_shards: bool = False,
) -> PretrainResult:
    """Pre-train a model of any family on a corpus.

    Writes ``config.toml``, ``environment.json``, ``metrics.csv`` and ``checkpoints/`` while it runs, and at the end
    ``model/`` (the weights that were best by validation, a model directory) and ``run.json``. Under torchrun all
    processes call this together, and the first one writes.

    Parameters
    ----------
    config
        See `read_config`.
    corpus
        Folder of a corpus with the splits train and validation.
    out
        Folder of the run.
    resume
        Continue from the last checkpoint in `out`; without one the run begins. The continued run takes the same
        steps as one that was not interrupted.
    skip_bad_shards
        Read every shard once before the run, and leave out those that are missing or damaged; they are named in a
        warning, in ``run.json`` and in the result. Without it the first one met stops the run.

    Raises
    ------
    InputError
        If the corpus or an option cannot be used, the corpus cannot answer what is asked of it, `out` already holds a
        run and `resume` is False, the run in `out` has another configuration or other data, or another process writes
        to `out`.
    TrainingDivergedError
        If a loss or a gradient is not finite.

    Examples
    --------
    ::

        from spaf_train import pretrain, read_config

        result = pretrain(read_config("small"), "build/corpus", "runs/first")
        result.best["auroc_pairs"]
    """
    out = Path(out)
    check_output(out, folder=True)
    source = _open(corpus, skip_bad_shards=skip_bad_shards)
    told = config
    begun_from = read_source(config)
    if begun_from is not None:
        config = dataclasses.replace(config, model=open_config(begun_from))
    # With the distances of the corpus in it: what a run must keep, and what its record and its card say.
    config = dataclasses.replace(config, sampling=config.sampling.following(source.distances))
    with (
        ranks(config.run.device) as group,
        claimed(out, "spaf-train pretrain", group),
        reproducible(group.device, config.run.threads),
        stop_request() as stop,
    ):
        if config.run.tensorboard:
            check_tensorboard()
        if config.run.compile:
            check_compiler(group.device)
        checkpoints = Checkpoints(out / "checkpoints", keep=config.run.keep)
        if not resume and (checkpoints.latest() or (out / "run.json").exists()):
            raise InputError(f"{out} already holds a run; continue it with --resume or choose another folder.")
        # All ranks leave out what the first one found, so that they agree on the batches.
        skipped = group.gather(source.bad_shards() if skip_bad_shards and group.is_main else {})[0]
        for sentence in skipped.values() if group.is_main else ():
            logger.warning("skipped: %s", sentence)
        identity: dict[str, Any] = {"config": _decisive(config), "corpus": fingerprint(source)}
        asked, left_out = askable(config, source, skip_shards=skipped)
        for name, reason in left_out.items() if group.is_main else ():
            logger.warning("The objective %s is left out: %s.", name, reason)
        state = state_to_resume(checkpoints, identity, out) if resume else None
        group.barrier()

        dropout = config.sampling.context_dropout
        family = family_of(config.family)
        vocabulary = vocabulary_from_corpus(source, config.vocabulary, context_dropout=dropout, family=family)
        before = None if begun_from is None else continued(begun_from, vocabulary, seed=config.seed)
        check_same_source(before, state)
        if before is not None:
            identity["continued_from"] = before.account
        model = family(config.model, vocabulary, seed=config.seed) if before is None else before.model
        for objective in config.objectives.make().values():
            objective.check_network(model.network, config.family)
        # A run that continues has its table among its weights, and what was read for it in its identity.
        gene_table = set_gene_table(model, config.gene_embeddings, read=state is None, quiet=not group.is_main)
        identity["gene_embeddings"] = gene_table if state is None else state["identity"].get("gene_embeddings")
        model.to(group.device)
        streams = _streams(asked, source, model, group, skipped)
        train, validation = streams["train"], streams.get("validation")
        for objective in train.asked.values():
            objective.require_data(train)
        if group.is_main:
            out.mkdir(parents=True, exist_ok=True)
            checkpoints.sweep()
            sweep_partial(out / "model")
            write_text(out / "config.toml", told.to_toml())
            write_json(out / "environment.json", _environment(group))
        try:
            prepared = _prepare(streams, group, stop) if state is None else state.get("prepared", {})
        except BadShardError as error:
            raise InputError(f"{str(error).removesuffix('.')}; {_OR_SKIP}") from error
        if state is None:
            set_linear_path(model, train, group)
        if prepared is None:
            return PretrainResult(out, False, 0, {}, skipped, left_out, {})
        for split, stream in streams.items():
            for name in prepared:
                stream.asked[name].take(prepared[name], split)
        for name in prepared if state is None and before is None else ():
            train.asked[name].begin(model.network, prepared[name])
        trainer = Trainer(
            model.network,
            objectives=asked.objectives,
            optimizer=config.optimizer,
            run=config.run,
            train=train,
            validation=validation,
            ranks=group,
            checkpoints=checkpoints,
            log_path=out / "metrics.csv",
            identity=identity,
            distributed=config.distributed,
            prepared=prepared,
        )
        if state is not None:
            trainer.load_state_dict(state)
            logger.info("continuing after step %d", trainer.step)
        try:
            finished = trainer.fit(stop)
        except BadShardError as error:
            raise InputError(f"{str(error).removesuffix('.')}; {_OR_SKIP}") from error
        best = trainer.best or {}
        if finished and group.is_main:
            _export(model, trainer, source, config, out, str(corpus), skipped, left_out)
        group.barrier()
        return PretrainResult(
            out=out,
            finished=finished,
            step=trainer.step,
            best=best,
            skipped_shards=skipped,
            left_out=left_out,
            not_learnt=trainer.not_learnt,
            verdicts=trainer.verdicts,
            nothing_learnt=nothing_learnt(trainer.verdicts, trainer.not_learnt, steps=trainer.step),
        )


def _open(corpus: str | Path, *, skip_bad_shards: bool) -> Corpus:
    if skip_bad_shards:
        return Corpus(corpus, check=False)
    try:
        return Corpus(corpus)
    except spaf_data.InputError as error:
        Corpus(corpus, check=False)  # what is wrong with the folder as a whole is said as it is
        raise InputError(f"{str(error).removesuffix('.')}; {_OR_SKIP}") from error


def _streams(
    config: PretrainConfig, corpus: Corpus, model: Model[Any, Any], group: Ranks, skipped: dict[str, str]
) -> dict[str, BatchStream]:
    # Validation sees cells as they are, and every process an equal share of the batches.
    plain = dataclasses.replace(
        config.sampling,
        thinning=0.0,
        panel_min=1.0,
        context_dropout=0.0,
        batches_per_step=group.world_size,
        positives=1.0,
    )
    return {
        split: BatchStream(
            corpus,
            model,
            sampling,
            config.objectives,
            split=split,
            seed=config.seed,
            rank=group.rank,
            world_size=group.world_size,
            skip_shards=skipped,
        )
        for split, sampling in (("train", config.sampling), ("validation", plain))
        if split == "train" or split in corpus.splits or config.run.best_metric != "last"
    }


def _prepare(streams: dict[str, BatchStream], group: Ranks, stop: StopRequest) -> dict[str, Any] | None:
    """Return what the objectives prepare, made by the first process for all; None if the run is asked to stop."""
    prepared: dict[str, Any] = {}
    problem: Exception | None = None
    try:
        for name, objective in streams["train"].asked.items() if group.is_main else ():
            found = objective.prepare(streams["train"], streams.get("validation"), stop)
            if found:
                prepared[name] = found
    except (InputError, TrainingDivergedError) as error:
        problem = error
    # Processes that wait are told what went wrong, rather than waiting for ever.
    problem, stopped, prepared = group.gather((problem, stop.received, prepared))[0]
    if problem is not None:
        raise problem
    return None if stopped else prepared


def _decisive(config: PretrainConfig) -> dict[str, Any]:
    """Return the options that a run must keep when it is continued: all but how it computes and what it shows."""
    options = flatten(config.as_table())
    if config.family == DEFAULT_FAMILY:  # which runs had that knew no other
        del options["model.family"]
    return {name: value for name, value in options.items() if not name.startswith(_FREE)}


def _export(
    model: Model[Any, Any],
    trainer: Trainer,
    corpus: Corpus,
    config: PretrainConfig,
    out: Path,
    corpus_name: str,
    skipped: dict[str, str],
    left_out: dict[str, str],
) -> None:
    """Write the best weights as a model directory, then run.json."""
    assert trainer.best is not None
    best_step = int(trainer.best["step"])
    # A fresh model: that of the run may be divided among processes.
    sizes = config.model
    for name, objective in OBJECTIVES.items():
        if name in trainer.not_learnt or name not in config.objectives.enabled:
            sizes = objective.unlearnt(sizes)
    model = type(model)(sizes, model.vocabulary)
    model.network.load_state_dict(load_checkpoint(Checkpoints(out / "checkpoints").best(best_step))["network"])
    notes = [str(found["sentence"]) for found in model.report().values()]
    if "continued_from" in trainer.identity:
        notes.append(Continued(model, trainer.identity["continued_from"]).sentence())
    nothing = nothing_learnt(trainer.verdicts, trainer.not_learnt, steps=trainer.step)
    model.card = model_card(
        corpus, config, trainer.best, left_out=left_out, not_learnt=trainer.not_learnt, notes=notes,
        verdicts=trainer.verdicts, nothing_learnt=nothing,
    )  # fmt: skip
    model.save_pretrained(out / "model")
    write_json(
        out / "run.json",
        ({"nothing_learnt": nothing} if nothing else {})
        | {
            "command": "spaf-train pretrain",
            "versions": versions(),
            "parameters": {"data": corpus_name, "config": config.as_table()},
            "corpus": fingerprint(corpus),
            "skipped_shards": skipped,
            "gene_embeddings": trainer.identity["gene_embeddings"],
            "continued_from": trainer.identity.get("continued_from"),
            "report": model.report(),
            "seconds": trainer.seconds,
            "peak_rss_mb": peak_rss_mb(),
            "steps": trainer.step,
            "best_step": best_step,
            "best": trainer.best,
            "left_out": left_out,
            "not_learnt": trainer.not_learnt,
            "objectives": trainer.verdicts,
            "n_parameters": model.n_parameters,
        },
    )


def _environment(group: Ranks) -> dict[str, Any]:
    is_cuda = group.device.type == "cuda"
    return {
        "versions": versions(),
        "system": platform.system(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(group.device) if is_cuda else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": group.world_size,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

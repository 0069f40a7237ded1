"""An own-tissue model from a corpus: `spaf_model.TissueModel.fit` on its cells, with the record of a run."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import anndata
import pandas as pd
import tomli_w

from spaf_data import Corpus
from spaf_model import InputError, TissueModel, check_output
from spaf_train._checks import require
from spaf_train._options import check_types, from_table, to_table
from spaf_train._record import fingerprint, run_record, sweep_partial, write_json, write_text
from spaf_train.evaluation.cells import cells_of_blocks
from spaf_train.pretraining.config import apply_override
from spaf_train.trainer.distributed import claimed, ranks

logger = logging.getLogger(__name__)

_ALL = "all"
_COMMAND = "spaf-train pretrain"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TissueRunConfig:
    """What the fit of an own-tissue model is told, apart from where its data is."""

    preset: Literal["tissue", "neighbours"] = "tissue"  # "neighbours": the closed form alone
    seed: int = 0  # of the network and its batches
    split: str = "train"  # of the corpus, that is fitted; "all": every cell, which leaves none to judge on
    radius: float | None = None  # of neighbours, in um; None: that of the corpus
    threads: int = 1  # of torch; equal results need an equal number

    def __post_init__(self) -> None:
        check_types(self)
        require(self.seed >= 0, f"seed must be at least 0, not {self.seed}.")
        require(self.threads >= 1, f"threads must be at least 1, not {self.threads}.")
        require(self.radius is None or self.radius > 0.0, f"radius must be above 0, not {self.radius}.")


@dataclasses.dataclass(frozen=True)
class TissueResult:
    """How a fit ended."""

    out: Path  # the folder of the run
    n_cells: int  # that were fitted
    fallback: str  # why less was fitted than was asked for; "" where all was
    not_learnt: str  # a sentence where the network has learnt nothing; "" where it has, or there is none
    skipped_shards: dict[str, str]  # names of the shards that were left out, and what is wrong with each
    seconds: float

    @property
    def sentences(self) -> list[str]:
        """What a user should know."""
        return [sentence for sentence in (self.not_learnt, self.fallback) if sentence]


def read_tissue_config(preset: str, *, overrides: Sequence[str] = ()) -> TissueRunConfig:
    """Return the configuration of a preset, with options replaced as ``"option=value"``.

    Raises
    ------
    InputError
        If an option is unknown or out of range.
    """
    table: dict[str, Any] = {"preset": preset}
    for override in overrides:
        apply_override(table, override)
    return from_table(TissueRunConfig, table)


def pretrain_tissue(
    config: TissueRunConfig,
    corpus: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    skip_bad_shards: bool = False,
) -> TissueResult:
    """Fit an own-tissue model to a corpus of one or a few slides.

    Writes ``config.toml``, ``model/`` (a model directory) and, last, ``run.json``. Nothing is saved on the way, as it
    takes seconds to minutes: a run that was killed begins again. Under torchrun the first process does the work.

    Parameters
    ----------
    config
        See `read_tissue_config`.
    corpus
        Folder of a corpus.
    out
        Folder of the run.
    resume
        Accept a folder in which the same run is finished, and return what became of it.
    skip_bad_shards
        Read every shard once before the run, and leave out those that are missing or damaged.

    Raises
    ------
    InputError
        If the corpus or an option cannot be used, `out` holds a run and `resume` is False, or holds another run.
    """
    out = Path(out)
    check_output(out, folder=True)
    started = time.perf_counter()
    source = Corpus(corpus, check=not skip_bad_shards)
    with ranks("cpu") as group, claimed(out, _COMMAND, group):
        record = _finished(out, config, source, resume=resume)
        if group.is_main and record is None:
            skipped = source.bad_shards() if skip_bad_shards else {}
            for sentence in skipped.values():
                logger.warning("skipped: %s", sentence)
            adata = corpus_cells(source, config.split, skip_shards=skipped)
            model = TissueModel.fit(
                adata,
                config.preset,
                radius=config.radius or source.distances.positive,
                seed=config.seed,
                n_threads=config.threads,
                progress=True,
            )
            out.mkdir(parents=True, exist_ok=True)
            sweep_partial(out / "model")
            write_text(out / "config.toml", tomli_w.dumps(to_table(config)))
            model.save_pretrained(out / "model")
            assert model.account is not None
            parameters = {"data": str(corpus), "config": to_table(config)}
            first = {"nothing_learnt": model.account.not_learnt} if model.account.not_learnt else {}
            record = (
                first
                | run_record(_COMMAND, parameters, started=started)
                | {
                    "corpus": fingerprint(source),
                    "skipped_shards": skipped,
                    "account": model.account.as_dict(),
                    "n_parameters": model.n_parameters,
                }
            )
            write_json(out / "run.json", record)
        elif group.is_main:
            assert record is not None
            for sentence in _result(out, record).sentences:  # that the fit itself has logged
                logger.warning("%s", sentence)
        record = group.gather(record)[0]
    return _result(out, record)


def corpus_cells(corpus: Corpus, split: str, *, skip_shards: Collection[str] = ()) -> anndata.AnnData:
    """Return the cells of a split ("all": of every split), each once, with ``obs["slide"]`` and ``obsm["spatial"]``.

    Raises
    ------
    InputError
        If the corpus has no such split, or all of it was left out.
    """
    refs = corpus.block_refs(None if split == _ALL else split)
    kept = [ref for ref in refs if ref.shard not in skip_shards]
    if not kept:
        raise InputError(f"No cell of the split {split!r} of {corpus.path} is left without the bad shards.")
    cells = cells_of_blocks(corpus, kept)
    var = pd.DataFrame(index=pd.Index(corpus.genes, dtype=object))
    if corpus.gene_ids is not None:
        var["gene_ids"] = corpus.gene_ids
    obs = pd.DataFrame({"slide": pd.Categorical(cells.slide)}, index=cells.names)
    adata = anndata.AnnData(cells.counts, obs=obs, var=var)
    adata.obsm["spatial"] = cells.coordinates
    return adata


def _finished(out: Path, config: TissueRunConfig, corpus: Corpus, *, resume: bool) -> dict[str, Any] | None:
    """Return the record of the same run where it is finished in this folder, or None where there is no run."""
    path = out / "run.json"
    if not path.exists() and not (out / "checkpoints").exists():
        return None
    if not resume:
        raise InputError(f"{out} already holds a run; choose another folder.")
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    same = record.get("parameters", {}).get("config") == to_table(config)
    if not same or record.get("corpus") != fingerprint(corpus):
        raise InputError(f"{out} holds a run with another configuration or other data; choose another folder.")
    return record


def _result(out: Path, record: dict[str, Any]) -> TissueResult:
    account = record["account"]
    return TissueResult(
        out=out,
        n_cells=account["n_cells"] - account["n_empty"],
        fallback=account["fallback"],
        not_learnt=account["not_learnt"],
        skipped_shards=record["skipped_shards"],
        seconds=record["seconds"],
    )

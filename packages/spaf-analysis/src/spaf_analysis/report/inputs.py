"""What a report is made from, read and checked before anything is computed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from spaf_analysis.errors import InputError
from spaf_analysis.keys import EMBEDDING, N_TRANSCRIPTS, SLIDE, SPAF, SPATIAL, SPLIT
from spaf_analysis.records import Record, stored_records
from spaf_analysis.tables import loaded, read_table
from spaf_data import Corpus, Distances
from spaf_model import Model, model_path, shipped_models


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the earlier stages wrote down.

    Attributes
    ----------
    adata
        The embedded cells.
    model
        The model that embedded them.
    metrics
        `metrics.csv` of the run; without rows for a model that is fitted and not trained step by step.
    build, run
        `build.json` and `run.json`.
    records
        The records of build, pretrain and embed, and of commands whose results are in the table.
    distances
        At what distances cells of the corpus are neighbours, hard negatives and easy negatives.
    """

    adata: ad.AnnData
    model: Model[Any, Any]
    metrics: pd.DataFrame
    build: dict[str, Any]
    run: dict[str, Any]
    records: tuple[Record, ...]
    distances: Distances = Distances()

    @property
    def account(self) -> dict[str, int]:
        """What was read, dropped and kept, summed over the slides of the table."""
        slides = set(self.adata.obs[SLIDE].astype(str)) if SLIDE in self.adata.obs else set()
        built = [slide["account"] for slide in self.build.get("slides", []) if slide.get("slide") in slides]
        if not built:
            stored = self.adata.uns.get(SPAF, {}).get("account")
            built = [stored] if stored is not None else []
        return {name: sum(int(account.get(name, 0)) for account in built) for account in built for name in account}

    @property
    def best_step(self) -> int | None:
        """The step of training whose weights were kept, if the run says so."""
        step = self.run.get("best_step")
        return None if step is None else int(step)

    @property
    def not_learnt(self) -> dict[str, str]:
        """A sentence for each objective of which training has learnt nothing, as the run says."""
        of_fit = str(self.fit.get("not_learnt") or "")
        return _sentences(self.run.get("not_learnt")) | ({"neighbours": of_fit} if of_fit else {})

    @property
    def nothing_learnt(self) -> str:
        """A sentence where training has learnt nothing at all, as the run says."""
        return str(self.run.get("nothing_learnt") or "")

    @property
    def objectives(self) -> dict[str, dict[str, Any]]:
        """How each objective stands beside chance and its baseline, as the run says."""
        found = self.run.get("objectives")
        if isinstance(found, dict):
            return {str(name): dict(each) for name, each in found.items() if isinstance(each, dict)}
        if self.fit.get("loss") is None:
            return {}
        learnt = not self.fit.get("not_learnt")
        return {"neighbours": {"learnt": learnt, "loss": self.fit["loss"], "chance": self.fit.get("chance")}}

    @property
    def fit(self) -> dict[str, Any]:
        """What the run says of a model that is fitted and not trained step by step; nothing of others."""
        account = self.run.get("account")
        return dict(account) if isinstance(account, dict) else {}

    @property
    def left_out(self) -> dict[str, str]:
        """Objectives that the data could not be asked, and why, as the run says."""
        return _sentences(self.run.get("left_out"))


def _sentences(stored: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in stored.items()} if isinstance(stored, dict) else {}


def read_inputs(embedded: Path, *, model: str | Path, run: Path, build: Path, key: str = EMBEDDING) -> ReportInputs:
    """Read and check what a report is made from.

    Parameters
    ----------
    embedded
        The h5ad that `spaf-model embed` wrote.
    model
        Model directory, or the name of a model that comes with spaf-model.
    run
        Folder that `spaf-train pretrain` wrote.
    build
        Folder that `spaf-data build` wrote.
    key
        The embedding in `obsm`.

    Returns
    -------
    ReportInputs
        Checked.

    Raises
    ------
    InputError
        If a file or folder is missing or not what it should be, or the table lacks a column or key.
    """
    if not embedded.is_file():
        raise InputError(f"there is no file {embedded}.")
    for folder, what, command in (
        (run, "run", "spaf-train pretrain writes one"),
        (build, "build", "spaf-data build writes one"),
    ):
        if not folder.is_dir():
            raise InputError(f"there is no {what} at {folder}; {command}.")
    if not model_path(model).is_dir():
        raise InputError(
            f"there is no model directory at {model}; spaf-train pretrain writes one to RUN/model, and these come with "
            f"spaf-model: {', '.join(shipped_models()) or 'none'}."
        )
    build_record = _read_json(build / "build.json", "spaf-data build")
    run_record = _read_json(run / "run.json", "spaf-train pretrain")
    metrics = _read_metrics(run / "metrics.csv", is_fitted="account" in run_record)
    adata = read_table(embedded)
    _check_table(adata, embedded, key)
    spaf = adata.uns.get(SPAF, {})
    before = (("build", build_record), ("pretrain", run_record), ("embed", spaf.get("embed", {})))
    records = (*(Record.of(stage, stored) for stage, stored in before), *stored_records(spaf))
    return ReportInputs(
        adata,
        loaded(model),
        metrics,
        build_record,
        run_record,
        records,
        _distances(build, build_record),
    )


def _distances(build: Path, record: dict[str, Any]) -> Distances:
    """Return the distances of the corpus of a build, or of its record where the corpus is no longer there."""
    if (build / "corpus" / "manifest.json").is_file():
        return Corpus(build / "corpus", check=False).distances
    radius = record.get("parameters", {}).get("options", {}).get("radius", Distances().positive)
    return Distances.of_manifest(record.get("distances"), float(radius))


def _check_table(adata: ad.AnnData, path: Path, key: str) -> None:
    if key not in adata.obsm:
        raise InputError(
            f"{path} has no embedding obsm[{key!r}] (spaf-model embed writes one); "
            f"obsm has: {', '.join(adata.obsm) or 'nothing'}."
        )
    if SPATIAL not in adata.obsm:
        raise InputError(f"{path} has no coordinates obsm[{SPATIAL!r}]; obsm has: {', '.join(adata.obsm)}.")
    for column in (SPLIT, N_TRANSCRIPTS):
        if column not in adata.obs:
            raise InputError(
                f"{path} has no obs column {column!r} (spaf-data build writes it); it has: {', '.join(adata.obs)}."
            )
    if not np.isfinite(np.asarray(adata.obsm[SPATIAL], dtype=np.float64)).all():
        raise InputError(f"obsm[{SPATIAL!r}] of {path} holds coordinates that are not finite.")


def _read_json(path: Path, command: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing: {command} writes it last, so it did not finish there.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path} holds no JSON object.")
    return stored


def _read_metrics(path: Path, *, is_fitted: bool) -> pd.DataFrame:
    if is_fitted and not path.exists():
        return pd.DataFrame({"step": [], "split": [], "loss": []})
    if not path.is_file():
        raise InputError(f"{path} is missing: spaf-train pretrain writes it.")
    try:
        metrics = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no table: {str(error).splitlines()[0]}.") from error
    for column in ("step", "split", "loss"):
        if column not in metrics:
            raise InputError(f"{path} has no column {column!r}; it has: {', '.join(metrics.columns)}.")
    return metrics

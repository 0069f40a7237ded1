"""The cells of a fine-tuning for labels as heads read them, and the probe that is the default."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaf_model import CellCounts, InputError
from spaf_train.evaluation.bootstrap import Tiles, spatial_tiles
from spaf_train.evaluation.log_counts import LogCounts
from spaf_train.evaluation.probing import (
    Block,
    Choice,
    Probe,
    ProbeSettings,
    choose_probe,
    fit_probe,
    is_clearly_better,
)
from spaf_train.finetuning.label_head import LabelHead
from spaf_train.finetuning.labelled_cells import TRAIN, LabelledCells

if TYPE_CHECKING:
    from spaf_model import Model
    from spaf_train.finetuning.config import FinetuneConfig

# Of the embedding beside log counts of weight 1. Chosen on osmFISH, STARmap and PBMC (docs/fine_tuning.md), where 1 is
# as good within .01.
EMBEDDING_WEIGHT = 0.5
_GROUPS = 1_000  # of cells without a place, for the bootstrap
COUNTS, BOTH, EMBEDDING = "counts", "both", "embedding"
READS = {COUNTS: "log counts", BOTH: "the embedding and log counts", EMBEDDING: "the embedding"}


@dataclasses.dataclass(frozen=True, eq=False)
class LabelInputs:
    """All cells with their labels, as heads read them.

    Attributes
    ----------
    labels
        Classes, and parts.
    cells
        Counts in the tokens of the model.
    pooling
        How one state is made of a cell.
    embedding
        (n_cells, D), of the model as given; NaN for cells of no part, or without a gene.
    counts, log_counts
        The genes, and (n_cells, n_genes) of them.
    folds
        Of the training cells.
    coordinates, slide
        Of all cells, where they are known.
    """

    labels: LabelledCells
    cells: CellCounts
    pooling: str
    embedding: NDArray[np.float32]
    counts: LogCounts
    log_counts: NDArray[np.float32]
    folds: NDArray[np.int64]
    coordinates: NDArray[np.float64] | None
    slide: NDArray[np.str_] | None

    @property
    def codes(self) -> NDArray[np.int64]:
        """Class of each cell, -1 where there is none."""
        return self.labels.codes

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.labels.classes)

    def rows(self, part: str) -> NDArray[np.int64]:
        """Return the labelled cells of a part."""
        return self.labels.cells(part)

    def blocks(self, reads: str, embedding: NDArray[np.float32] | None = None) -> list[Block]:
        """Return what a head reads; `embedding` in place of that of the model as given."""
        embedding = self.embedding if embedding is None else embedding
        if reads == EMBEDDING:
            return [Block(embedding)]
        counts = Block(self.log_counts)
        return [counts] if reads == COUNTS else [Block(embedding, EMBEDDING_WEIGHT), counts]

    def tiles_of(self, rows: NDArray[np.integer]) -> Tiles:
        """Return tiles of tissue of some cells or, where places are not known, random groups of them."""
        if self.coordinates is not None and np.isfinite(self.coordinates[rows]).all():
            return spatial_tiles(self.coordinates[rows], None if self.slide is None else self.slide[rows])
        n_groups = min(rows.size, _GROUPS)
        return Tiles(np.random.default_rng(0).permutation(rows.size) % n_groups, n_groups, float("nan"))


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenProbe:
    """What a head reads, and how it is fitted, by the folds inside the training cells.

    Attributes
    ----------
    reads
        ``"counts"``, ``"both"`` or ``"embedding"``.
    choices
        What was chosen for each of those that were looked at.
    """

    reads: str
    choices: dict[str, Choice]

    def fit(self, inputs: LabelInputs, rows: NDArray[np.integer], reads: str | None = None) -> Probe:
        """Fit the probe on some cells; `reads` takes another one."""
        reads = reads or self.reads
        chosen = self.choices[reads]
        return fit_probe(
            inputs.blocks(reads), inputs.codes, rows, inputs.n_classes, penalty=chosen.penalty,
            balanced=chosen.balanced,
        )  # fmt: skip

    def head(self, inputs: LabelInputs) -> LabelHead:
        """Return the head, fitted on all training cells."""
        return head_of(inputs, self.fit(inputs, inputs.rows(TRAIN)), self.reads)

    def settings(self, reads: str) -> ProbeSettings | None:
        """Return what was chosen for a head that reads something, or None where that was not looked at."""
        one = self.choices.get(reads)
        return None if one is None else ProbeSettings(penalty=one.penalty, balanced=one.balanced)

    def as_dict(self) -> dict[str, Any]:
        """Return the choice as plain values."""
        looked = {
            reads: {"penalty": one.penalty, "balanced": one.balanced, "macro_f1": one.macro_f1}
            for reads, one in self.choices.items()
        }
        return {"reads": self.reads, "on_folds": looked}


def choose_head(inputs: LabelInputs, config: FinetuneConfig, *, for_tuning: bool = False) -> ChosenProbe:
    """Choose what the head reads, its penalty and whether classes are balanced.

    Log counts alone are the first choice; the embedding joins them where that is better on the folds by more than a
    standard error.

    Parameters
    ----------
    inputs
        The cells; of labels those of the training part are looked at.
    config
        What is given goes before what would be chosen.
    for_tuning
        Look at both together whatever is given: an encoder that is trained begins with that.
    """
    rows = inputs.rows(TRAIN)
    wanted = [COUNTS, BOTH] if config.features == "auto" else [config.features]
    looked = wanted + [BOTH] * (for_tuning and BOTH not in wanted)
    choices = {
        reads: choose_probe(inputs.blocks(reads), inputs.codes, rows, inputs.folds, settings_of(config, rows.size))
        for reads in looked
    }
    reads = wanted[0]
    if len(wanted) > 1:
        simple, rich = (choices[one] for one in wanted)
        tiles = inputs.tiles_of(simple.rows)
        if is_clearly_better(inputs.codes[simple.rows], rich.predicted, simple.predicted, tiles, seed=config.seed):
            reads = wanted[1]
    return ChosenProbe(reads, choices)


def settings_of(config: FinetuneConfig, n_cells: int) -> ProbeSettings:
    """Return what a configuration gives of probes that are fitted on so many cells."""
    penalty = None if config.regularisation is None else config.regularisation / n_cells
    return ProbeSettings(penalty=penalty, balanced=config.balance_classes, seed=config.seed)


def head_of(inputs: LabelInputs, probe: Probe, reads: str) -> LabelHead:
    """Return a probe as a head that can be stored."""
    counts = None if reads == EMBEDDING else inputs.counts
    return LabelHead.from_probe(
        probe, label=inputs.labels.label, classes=inputs.labels.classes, pooling=inputs.pooling, counts=counts
    )


def comparable_pooling(model: Model[Any, Any], pooling: str | None) -> str:
    """Return the method by which cells are embedded for a head, which must mean the same for every table.

    Raises
    ------
    InputError
        If the model has no such method, or its axes are those of the table that is embedded.
    """
    if pooling is not None and pooling not in model.methods:
        raise InputError(f"pooling must be one of {', '.join(model.methods)}, not {pooling!r}.")
    fixed = "fixed" in model.methods  # else the axes are of the model in any case
    if fixed and pooling not in (None, "fixed"):
        raise InputError(
            f"pooling {pooling!r} gives each table axes of its own, which a head that was learnt on another cannot "
            "read; it must be fixed."
        )
    return "fixed" if fixed else pooling or model.methods[0]

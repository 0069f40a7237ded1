"""Everything a model can be asked on held-out cells of a corpus, beside what is cheap to know."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spaf_data import Corpus
from spaf_model import InputError, Model, NamesHiddenGenes, RanksGenePairs, load_model
from spaf_train._record import fingerprint, run_record
from spaf_train.evaluation.bootstrap import Interval, spatial_tiles, verdict
from spaf_train.evaluation.calibrated_cosine import CalibratedCosine
from spaf_train.evaluation.cells import on_their_slides, read_tissue, readable_cells
from spaf_train.evaluation.gene_pairs import evaluate_gene_pairs, pair_rates, score_gene_pairs
from spaf_train.evaluation.judging import MODEL
from spaf_train.evaluation.masked_genes import evaluate_masked_genes
from spaf_train.evaluation.options import TRAIN, EvaluationOptions
from spaf_train.evaluation.pair_models import PairHeadEvaluation, evaluate_pair_models
from spaf_train.stream.contexts import with_known_contexts


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a model does on held-out cells; see the functions named for the columns.

    Attributes
    ----------
    n_cells, n_fitted_cells
        Cells judged, and training cells that baselines were fitted on.
    masked_genes
        `evaluate_masked_genes`; None where the model names no hidden genes.
    gene_pairs, gene_pair_differences
        `evaluate_gene_pairs`; None where the corpus does not tell which genes are co-localised, or the model ranks no
        pairs of genes.
    colocalized_share
        Share of the judged gene pairs that are co-localised, which is chance for AUPRC; NaN without gene pairs.
    cell_pairs
        `evaluate_pair_models`; None where the cells have no neighbours with negatives.
    record
        Command, versions, parameters, seconds, peak memory.
    not_judged
        Sentences that say what could not be judged, and why.
    """

    n_cells: int
    n_fitted_cells: int
    masked_genes: pd.DataFrame | None
    gene_pairs: pd.DataFrame | None
    gene_pair_differences: pd.DataFrame | None
    colocalized_share: float
    cell_pairs: PairHeadEvaluation | None
    record: dict[str, Any]
    not_judged: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return everything in plain values, tables as lists of rows."""
        content = {
            **self.record,
            "n_cells": self.n_cells,
            "n_fitted_cells": self.n_fitted_cells,
            "masked_genes": None if self.masked_genes is None else table_rows(self.masked_genes),
            "colocalization": None,
            "cell_pairs": None,
            "not_judged": list(self.not_judged),
        }
        if self.gene_pairs is not None and self.gene_pair_differences is not None:
            content["colocalization"] = {
                "colocalized_share": self.colocalized_share,
                "scores": table_rows(self.gene_pairs),
                "differences": table_rows(self.gene_pair_differences),
            }
        if self.cell_pairs is not None:
            judged = self.cell_pairs.evaluation
            content["cell_pairs"] = {
                "n_pairs": judged.n_pairs,
                "n_tiles": judged.tiles.n,
                "tile_um": judged.tiles.side,
                "scores": table_rows(judged.scores),
                "differences": table_rows(
                    judged.differences.assign(verdict=verdicts(judged.differences, judged.tiles.n))
                ),
                "operating_points": table_rows(self.cell_pairs.operating_points),
                "calibration": table_rows(self.cell_pairs.calibration),
                "reliability": table_rows(self.cell_pairs.reliability),
            }
        return content


def evaluate(
    model: Model[Any, Any] | str | Path,
    corpus: Corpus | str | Path,
    *,
    fit_on: Corpus | str | Path | None = None,
    options: EvaluationOptions = EvaluationOptions(),
    context: Mapping[str, str | None] | None = None,
) -> Evaluation:
    """Judge a model of any family on a held-out split of a corpus.

    Neighbouring cells are judged by the embedding and, where the model has one, by its pair head; what else is judged
    is what the model can be asked (`spaf_model.NamesHiddenGenes`, `spaf_model.RanksGenePairs`).
    Masked genes stand beside gene frequencies, gene pairs beside the abundance of the two genes and the rate of the
    pair in training cells, cell pairs beside the baselines of `judge_cell_pairs`. Whatever is fitted is fitted on the
    training split. Intervals (95 %) resample square tiles of tissue.

    Parameters
    ----------
    model
        A model, a model directory, or the name of a model that comes with spaf-model.
    corpus
        The data, or its folder.
    fit_on
        Corpus whose training split baselines are fitted on; None is `corpus`. It must have the same genes.
    options
        Split, numbers and seed. The same options give the same figures.
    context
        Tissue, condition, species or assay in place of those of the slides.

    Raises
    ------
    InputError
        If the split is not there or is the training split, or genes or contexts do not fit the model or each other.

    Examples
    --------
    ::

        from spaf_train import evaluate

        result = evaluate("runs/first/model", "build/corpus")
        result.cell_pairs.evaluation.interval("model", 30.0, "hard")
    """
    started = time.perf_counter()
    name = model.source if isinstance(model, Model) else str(model)
    if not isinstance(model, Model):
        model = load_model(model)
    source = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
    other = source if fit_on is None else fit_on if isinstance(fit_on, Corpus) else Corpus(fit_on)
    if other.genes != source.genes:
        raise InputError(f"{other.path} and {source.path} have different genes; baselines need the same ones.")
    options = options.following(source.distances)
    judged_corpus = with_known_contexts(source, model.vocabulary, context or {}, needed=model.needed_context)
    fitted_corpus = with_known_contexts(other, model.vocabulary, context or {}, needed=model.needed_context)
    cells = readable_cells(judged_corpus, options.split, model, options.max_cells, options.seed)
    fitted = read_tissue(fitted_corpus, TRAIN, max_cells=options.max_fitted_cells, seed=options.seed)
    tiles = spatial_tiles(cells.cells.coordinates, cells.cells.slide)
    not_judged: list[str] = []
    masked = gene_pairs = gene_differences = None
    share = float("nan")
    if isinstance(model, NamesHiddenGenes):
        n_with_gene = other.gene_statistics["n_cells"].reindex(other.genes).fillna(0).to_numpy(dtype=np.float64)
        masked = evaluate_masked_genes(
            model, cells, tiles, n_with_gene, fraction=options.masked_fraction, n_replicates=options.n_replicates,
            seed=options.seed,
        )  # fmt: skip
    else:
        not_judged.append(f"Masked genes were not judged: the family {model.family!r} names no hidden genes.")
    if not isinstance(model, RanksGenePairs):
        not_judged.append(f"Co-localised genes were not judged: the family {model.family!r} ranks no pairs of genes.")
    elif not cells.cells.knows_gene_pairs.any():
        not_judged.append("Co-localised genes were not judged: the corpus does not tell which genes lie together.")
    else:
        rates = pair_rates(fitted) if fitted.knows_gene_pairs.any() else None
        scored = score_gene_pairs(model, cells, rates, max_gene_pairs=options.max_gene_pairs, seed=options.seed)
        share = float(scored.colocalized.mean()) if scored.colocalized.size else share
        gene_pairs, gene_differences = evaluate_gene_pairs(
            scored, tiles, n_replicates=options.n_replicates, seed=options.seed
        )
    # Pairs are drawn from all cells of the split, as a report does: from some of the blocks they would be others.
    n_cells = sum(ref.n_owned for ref in judged_corpus.block_refs(options.split))
    paired = cells
    if n_cells > options.max_cells:
        paired = readable_cells(judged_corpus, options.split, model, n_cells, options.seed)
    paired = on_their_slides(paired, judged_corpus, model)
    head = CalibratedCosine.find(model.source)
    heads = {} if head is None else {MODEL: head}
    cell_pairs = evaluate_pair_models({MODEL: model}, paired, fitted, options, source.distances, heads=heads)
    not_judged = [*not_judged_pairs(cell_pairs, options), *not_judged]
    parameters = {
        "model": name,
        "data": str(source.path),
        "fit_on": str(other.path),
        "context": {kind: value for kind, value in (context or {}).items() if value is not None},
        **dataclasses.asdict(options),
        "distances": dataclasses.asdict(source.distances),
    }
    record = run_record("spaf-train evaluate", parameters, started=started, packages=("scikit-learn",))
    record["corpus"] = fingerprint(source)
    return Evaluation(
        len(cells), len(fitted), masked, gene_pairs, gene_differences, share, cell_pairs, record, tuple(not_judged)
    )  # fmt: skip


def not_judged_pairs(judged: PairHeadEvaluation | None, options: EvaluationOptions) -> list[str]:
    """Say which pairs of cells could not be judged."""
    if judged is None:
        assert options.radii is not None, "given by `following`"
        return [
            f"Cell pairs were not judged: in the split {options.split!r} no two cells lie within "
            f"{max(options.radii):g} um of each other with a third one of their slide far enough away to compare."
        ]
    what = {"easy": "far away (easy negatives)", "hard": "close by (hard negatives)"}
    return [
        f"Neighbours were not judged against cells {what[kind]}: the held-out tissue has none at such a distance."
        for kind in judged.evaluation.unjudged
    ]


def verdicts(differences: pd.DataFrame, n_tiles: int | None = None) -> list[str]:
    """Say of each row of a table of differences what the interval of its AUROC allows; see `verdict`."""
    columns = zip(differences["auroc"], differences["auroc_low"], differences["auroc_high"], strict=True)
    return [verdict(Interval(*values), n_tiles) for values in columns]


def table_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as a list of its rows, for JSON."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]

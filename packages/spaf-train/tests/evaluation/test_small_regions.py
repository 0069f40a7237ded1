"""Regions too small for some of the pairs: what can be judged is judged, and what cannot is said."""

import json
import sys

import numpy as np
import pytest

from spaf_data import write_corpus
from spaf_model import SpatialFormer
from spaf_train import cli
from spaf_train._record import plain
from spaf_train.evaluation import (
    BASELINES,
    EMBEDDING,
    LOGISTIC,
    MODEL,
    NETWORK,
    RANDOM,
    EvaluationOptions,
    evaluate,
    evaluation_tables,
)

OPTIONS = EvaluationOptions(max_pairs=60, n_replicates=40, radii=(20.0, 30.0), max_gene_pairs=3_000)


def in_a_box(slide, part, *, width, height, at=400.0):
    """The slide with the cells of a part in a box of their own, evenly at random."""
    slide = slide.copy()
    rows = np.flatnonzero(slide.obs["split"] == part)
    corner = (at, 0.0) if part == "validation" else (0.0, 0.0)
    slide.obsm["spatial"][rows] = np.random.default_rng(0).uniform(
        corner, np.add(corner, (width, height)), (rows.size, 2)
    )
    kept = slide.obs["split"].isin([part, "validation" if part == "train" else "train"]).to_numpy()
    return slide[kept].copy()


@pytest.fixture
def joined(model_dir):
    return SpatialFormer.from_pretrained(model_dir)


@pytest.mark.parametrize("reads", ["joint", "separate"])
def test_a_region_without_far_cells_is_judged_against_close_ones(slides, joined, separate, tmp_path, reads):
    small = write_corpus([in_a_box(slides[0], "validation", width=100, height=90)], tmp_path / "corpus", block_cells=40)
    result = evaluate(separate if reads == "separate" else joined, small, options=OPTIONS)
    judged = result.cell_pairs.evaluation
    assert judged.unjudged == ("easy",)
    assert set(judged.scores["negatives"]) == {"hard"}
    assert set(judged.scores["score"]) == {MODEL, EMBEDDING, RANDOM, *BASELINES}
    assert np.isfinite(judged.scores["auroc"]).all()
    (sentence,) = result.not_judged
    assert "not judged against cells far away (easy negatives)" in sentence
    assert result.as_dict()["not_judged"] == [sentence]
    json.dumps(plain(result.as_dict()), allow_nan=False)
    assert evaluation_tables(result)


def test_a_region_without_any_negatives_says_so(slides, joined, tmp_path):
    tiny = write_corpus([in_a_box(slides[0], "validation", width=50, height=50)], tmp_path / "corpus", block_cells=40)
    result = evaluate(joined, tiny, options=OPTIONS)
    assert result.cell_pairs is None
    assert "no two cells lie within 30 um of each other with a third one" in result.not_judged[0]
    assert len(result.masked_genes)


def test_a_training_region_without_negatives_leaves_trained_baselines_out(slides, joined, tmp_path):
    tiny = write_corpus([in_a_box(slides[0], "train", width=50, height=50)], tmp_path / "corpus", block_cells=40)
    judged = evaluate(joined, tiny, options=OPTIONS).cell_pairs.evaluation
    assert set(judged.scores["score"]) == {MODEL, EMBEDDING, RANDOM, *BASELINES} - {LOGISTIC, NETWORK}


def test_the_command_says_what_was_not_judged(slides, model_dir, tmp_path, monkeypatch, capsys):
    write_corpus([in_a_box(slides[0], "validation", width=100, height=90)], tmp_path / "corpus", block_cells=40)
    words = ["evaluate", model_dir, "--data", tmp_path / "corpus", "--replicates", 5, "--max-pairs", 20]
    monkeypatch.setattr(sys, "argv", ["spaf-train", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "not judged against cells far away (easy negatives)" in capsys.readouterr().out

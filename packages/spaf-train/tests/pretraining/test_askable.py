import csv
import json

import numpy as np
import pytest

from spaf_data import write_corpus
from spaf_model import InputError, SpatialFormer
from spaf_train import pretrain, read_config
from spaf_train.pretraining.card import model_card


def without_gene_pairs(slide):
    slide = slide.copy()
    slide.obsm["colocalization"] = slide.obsm["colocalization"][:, :0]
    slide.uns["colocalization"] = {"pairs": slide.uns["colocalization"]["pairs"].iloc[:0]}
    return slide


@pytest.fixture(scope="module")
def bare(slides, tmp_path_factory):
    """A corpus that says nothing of co-localised genes."""
    folder = tmp_path_factory.mktemp("bare") / "corpus"
    return write_corpus([without_gene_pairs(slide) for slide in slides], folder, block_cells=40)


def rows(out):
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_co_localisation_is_left_out_where_nothing_is_known_of_it(config, bare, tmp_path, caplog):
    result = pretrain(config, bare.path, tmp_path / "run")
    assert list(result.left_out) == ["colocalization"]
    assert "colocalization is left out: the corpus does not tell which genes lie together" in caplog.text
    assert not any(name.endswith("_colocalization") for row in rows(tmp_path / "run") for name in row)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["left_out"] == result.left_out
    card = SpatialFormer.from_pretrained(tmp_path / "run" / "model").card
    assert "Objectives: masked_genes, pairs; input" in card
    assert "- Left out: colocalization; the corpus does not tell" in card
    assert "nan" not in card
    assert "0.0000" not in card
    assert pretrain(config, bare.path, tmp_path / "run", resume=True).finished


def test_slides_of_which_nothing_is_known_count_for_no_mean(config_path, slides, tmp_path):
    mixed = write_corpus([slides[0], without_gene_pairs(slides[1])], tmp_path / "mixed", block_cells=40)
    overrides = ["sampling.window_blocks=1", "sampling.batches_per_step=1", "run.steps=30", "run.log_every=1"]
    pretrain(read_config(config_path, overrides=overrides), mixed.path, tmp_path / "run")
    found = [row["loss_colocalization"] for row in rows(tmp_path / "run") if row["split"] == "train"]
    assert 0 < sum(value == "" for value in found) < 30
    assert all(float(value) > 0.0 for value in found if value)


@pytest.mark.parametrize("metric", ["loss_colocalization", "auroc_colocalization"])
def test_weights_cannot_be_chosen_by_what_is_not_known(config_path, bare, tmp_path, metric):
    config = read_config(config_path, overrides=[f"run.best_metric={metric}"])
    with pytest.raises(InputError, match=f"run.best_metric is {metric}, and no slide of the split 'train' tells"):
        pretrain(config, bare.path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_to_train_is_said(config_path, bare, tmp_path):
    overrides = ["objectives.pairs.enabled=false", "objectives.masked_genes.enabled=false"]
    with pytest.raises(InputError, match="only colocalization is enabled"):
        pretrain(read_config(config_path, overrides=overrides), bare.path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_neighbours_is_said_before_the_work(config, slides, tmp_path, split):
    slide = slides[0].copy()
    chosen = np.flatnonzero(slide.obs["split"] == split)
    slide.obsm["spatial"][chosen] = 1e4 + 1e3 * np.arange(2 * len(chosen)).reshape(-1, 2)
    corpus = write_corpus([slide], tmp_path / "corpus", block_cells=40)
    with pytest.raises(InputError, match=f"no pair of neighbouring cells .*in its split '{split}'; build it"):
        pretrain(config, corpus.path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def as_split(slide, split):
    slide = slide.copy()
    slide.obs["split"] = split
    return slide


def test_the_card_says_what_was_held_out(config, corpus, slides, tmp_path):
    first, second = slides
    best = {"step": 3.0, "loss": 1.0}
    assert "validated on other places of the same slides. How it does on another donor" in model_card(
        corpus, config, best
    )
    whole = write_corpus([as_split(first, "train"), as_split(second, "validation")], tmp_path / "whole")
    card = model_card(whole, config, best)
    assert "validated on slides that were held out as a whole: second. Whether those are of other donors" in card
    assert "same slides" not in card
    assert "without a training cell, whose tokens are untrained: tissue 'Lung'." in card
    both = write_corpus([first, as_split(second, "validation")], tmp_path / "both")
    card = model_card(both, config, best)
    assert "other places of the same slides (first) and on slides that were held out as a whole: second." in card


def test_a_run_that_learnt_nothing_says_so(config_path, corpus, tmp_path):
    overrides = ["optimizer.learning_rate=1e-9", "optimizer.floor=0.0"]
    result = pretrain(read_config(config_path, overrides=overrides), corpus.path, tmp_path / "run")
    assert set(result.not_learnt) == {"masked_genes", "colocalization", "pairs"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["not_learnt"] == result.not_learnt
    model = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    card = model.card
    assert not model.config.colocalization_learnt
    assert all(f"- {sentence}" in card for sentence in result.not_learnt.values())
    sentence = "This run has learnt nothing in "
    assert result.nothing_learnt.startswith(sentence)
    assert "(masked_genes, colocalization, pairs): do not use the model" in result.nothing_learnt
    assert "preset tissue" in result.nothing_learnt
    assert "run.steps" in result.nothing_learnt
    assert "sampling.radius" in result.nothing_learnt
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert next(iter(record)) == "nothing_learnt"
    assert record["objectives"] == result.verdicts
    assert not any(found["learnt"] for found in result.verdicts.values())
    assert {"learnt", "loss", "chance", "auroc"} <= set(result.verdicts["pairs"])
    assert card.startswith(f"# SpatialFormer\n\n**{sentence}")
    assert "| masked genes | " in card
    again = pretrain(read_config(config_path, overrides=overrides), corpus.path, tmp_path / "run", resume=True)
    assert (again.not_learnt, again.verdicts) == (result.not_learnt, result.verdicts)

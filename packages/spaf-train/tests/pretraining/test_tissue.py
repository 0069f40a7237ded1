import json

import numpy as np
import pytest

from spaf_data import write_corpus
from spaf_model import InputError, TissueModel
from spaf_train import TissueRunConfig, pretrain_tissue, read_tissue_config
from spaf_train.pretraining.tissue import corpus_cells

NEIGHBOURS = TissueRunConfig(preset="neighbours")


def test_cells_of_a_corpus_are_those_of_its_slides(corpus, slides):
    adata = corpus_cells(corpus, "train")
    original = {
        (slide.obs["slide"].iloc[0], name): (counts, place)
        for slide in slides
        for name, counts, place, split in zip(
            slide.obs_names, slide.X.toarray(), slide.obsm["spatial"], slide.obs["split"], strict=True
        )
        if split == "train"
    }
    assert adata.n_obs == len(original) == len(set(adata.obs_names))
    order = adata.var_names.get_indexer(slides[0].var_names)
    for name, slide, counts, place in zip(
        adata.obs_names, adata.obs["slide"], adata.X.toarray(), adata.obsm["spatial"], strict=True
    ):
        expected, expected_place = original[slide, name]
        np.testing.assert_array_equal(counts[order], expected)
        np.testing.assert_allclose(place, expected_place, rtol=1e-6)
    everything = corpus_cells(corpus, "all")
    assert everything.n_obs == sum((slide.obs["split"] != "gap").sum() for slide in slides)


def test_a_run_leaves_a_model_its_configuration_and_a_record(corpus, slides, tmp_path):
    result = pretrain_tissue(NEIGHBOURS, corpus.path, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"] == "spaf-train pretrain"
    assert record["parameters"]["config"]["preset"] == "neighbours"
    assert result.n_cells == record["account"]["n_cells"] == corpus_cells(corpus, "train").n_obs
    assert not result.sentences
    assert 'preset = "neighbours"' in (tmp_path / "run" / "config.toml").read_text()
    model = TissueModel.from_pretrained(tmp_path / "run" / "model")
    assert model.config.n_slides == 2
    assert "within 30, as given" in model.card
    slide = slides[0].copy()
    model.embed(slide)
    assert np.isfinite(slide.obsm["X_SpaF"]).all()


def test_the_radius_is_that_of_the_corpus_unless_another_is_given(spread_corpus, tmp_path):
    pretrain_tissue(NEIGHBOURS, spread_corpus.path, tmp_path / "own")
    assert TissueModel.from_pretrained(tmp_path / "own" / "model").config.radius == 120.0
    config = read_tissue_config("neighbours", overrides=["radius=60.0", "split=all"])
    pretrain_tissue(config, spread_corpus.path, tmp_path / "other")
    assert TissueModel.from_pretrained(tmp_path / "other" / "model").config.radius == 60.0


def test_few_cells_are_told(corpus, tmp_path):
    result = pretrain_tissue(TissueRunConfig(), corpus.path, tmp_path / "run")
    assert "a network needs 1,500" in result.fallback
    assert result.sentences == [result.fallback]


def test_a_folder_with_a_run_is_left_alone(corpus, other_corpus, tmp_path):
    first = pretrain_tissue(NEIGHBOURS, corpus.path, tmp_path / "run")
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="already holds a run; choose another folder"):
        pretrain_tissue(NEIGHBOURS, corpus.path, tmp_path / "run")
    assert pretrain_tissue(NEIGHBOURS, corpus.path, tmp_path / "run", resume=True) == first
    for config, data in ((TissueRunConfig(), corpus), (NEIGHBOURS, other_corpus)):
        with pytest.raises(InputError, match="another configuration or other data"):
            pretrain_tissue(config, data.path, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights


def test_a_run_that_was_killed_begins_again(corpus, tmp_path):
    out = tmp_path / "run"
    pretrain_tissue(NEIGHBOURS, corpus.path, out)
    weights = (out / "model" / "model.safetensors").read_bytes()
    (out / "run.json").unlink()  # it is written last
    pretrain_tissue(NEIGHBOURS, corpus.path, out, resume=True)
    assert (out / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("preset=small", "preset must be one of tissue, neighbours"),
        ("radius=-1.0", "radius must be above 0"),
        ("steps=3", "steps is not an option"),
        ("threads=0", "threads must be at least 1"),
        ("seed=-1", "seed must be at least 0"),
    ],
)
def test_bad_options_are_refused(override, sentence):
    with pytest.raises(InputError, match=sentence):
        read_tissue_config("tissue", overrides=[override])


def test_a_split_that_is_not_there_is_refused(corpus, tmp_path):
    config = read_tissue_config("neighbours", overrides=["split=test"])
    with pytest.raises(ValueError, match="no split 'test'"):
        pretrain_tissue(config, corpus.path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_shards_are_left_out_and_named(slides, tmp_path):
    corpus = write_corpus(slides, tmp_path / "corpus", block_cells=40, shard_blocks=1)
    name = corpus.block_refs("train")[0].shard
    (corpus.path / name).unlink()
    result = pretrain_tissue(NEIGHBOURS, corpus.path, tmp_path / "run", skip_bad_shards=True)
    assert list(result.skipped_shards) == [name]
    assert 0 < result.n_cells < sum((slide.obs["split"] == "train").sum() for slide in slides)


def test_a_run_cannot_be_where_a_file_is(corpus, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; give the name of a folder"):
        pretrain_tissue(read_tissue_config("neighbours"), corpus.path, tmp_path / "file")

import csv
import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from spaf_model import InputError, SpatialFormer
from spaf_train import (
    GeneEmbeddings,
    GeneTableConfig,
    load_checkpoint,
    pretrain,
    read_config,
    vocabulary_from_corpus,
)
from spaf_train.gene_embedding import content_hash
from spaf_train.pretraining.gene_table import set_gene_table, with_gene_table


@pytest.fixture
def vocabulary(corpus):
    """That of the runs here, which drop no word of context."""
    return vocabulary_from_corpus(corpus, context_dropout=0.0)


def make_embeddings(genes, *, dimensions=5, seed=0, zeros=(), gene_ids=None):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(len(genes), dimensions)).astype(np.float32)
    vectors[[genes.index(gene) for gene in zeros]] = 0.0
    table = pd.DataFrame(
        {"gene": genes, "gene_id": gene_ids or "", "n_transcripts": 90, "embedded": vectors.any(axis=1)}
    )
    return GeneEmbeddings(genes=table, vectors=vectors, weights=np.ones(dimensions, np.float32))


@pytest.fixture
def stored(vocabulary, tmp_path):
    """Vectors of all genes of the corpus but G05, in another order; G01 has zeros, and one gene is unknown."""
    genes = [vocabulary.tokens[token] for token in vocabulary.gene_token_ids if vocabulary.tokens[token] != "G05"]
    embeddings = make_embeddings(["NEW", *genes[::-1]], zeros=["G01"])
    embeddings.save(tmp_path / "genes")
    return embeddings


@pytest.fixture
def with_table(config, stored, tmp_path):
    return dataclasses.replace(config, gene_embeddings=GeneTableConfig(path=str(tmp_path / "genes")))


def new_model(config, vocabulary):
    return SpatialFormer(config.model, vocabulary, seed=config.seed)


def rows(model, genes):
    tokens = [model.vocabulary.tokens.index(gene) for gene in genes]
    return model.network.embedding.gene_spatial.weight.detach()[tokens].numpy().astype(np.float64)


def test_vectors_arrive_by_name_with_their_angles_and_the_length_of_tokens(with_table, vocabulary, stored, tmp_path):
    assert with_table.model.gene_spatial_embedding
    model = new_model(with_table, vocabulary)
    tokens_before = model.network.embedding.tokens.weight.detach().clone()
    record = set_gene_table(model, with_table.gene_embeddings)
    assert record == {
        "path": str(tmp_path / "genes"),
        "sha256": content_hash(tmp_path / "genes"),
        "dimensions": 5,
        "n_genes": 24,
        "n_found": 22,
    }
    found = [gene for gene in stored.genes["gene"] if gene not in ("NEW", "G01")]
    there = stored.vectors[[stored.genes["gene"].tolist().index(gene) for gene in found]].astype(np.float64)
    here = rows(model, found)
    scale = np.linalg.norm(here) / np.linalg.norm(there)
    np.testing.assert_allclose(here @ here.T, scale**2 * (there @ there.T), atol=1e-6)
    known = tokens_before[torch.from_numpy(vocabulary.gene_token_ids)]
    assert np.sqrt((here**2).sum(axis=1).mean()) == pytest.approx(
        float(known.pow(2).sum(dim=1).mean().sqrt()), rel=1e-5
    )
    table = model.network.embedding.gene_spatial.weight.detach()
    assert int(table.any(dim=1).sum()) == 22  # neither G01, G05 nor a token that is no gene
    assert torch.equal(model.network.embedding.tokens.weight, tokens_before)


def test_longer_vectors_give_their_first_dimensions_and_scale_lengthens(config, vocabulary, tmp_path):
    genes = [vocabulary.tokens[token] for token in vocabulary.gene_token_ids]
    embeddings = make_embeddings(genes, dimensions=20)
    embeddings.save(tmp_path / "genes")
    lengths = []
    for scale in (1.0, 3.0):
        table = GeneTableConfig(path=str(tmp_path / "genes"), scale=scale)
        model = new_model(dataclasses.replace(config, gene_embeddings=table), vocabulary)
        set_gene_table(model, table)
        here = rows(model, genes)
        first = embeddings.vectors[:, :16].astype(np.float64)
        np.testing.assert_allclose(
            here @ here.T / np.trace(here @ here.T), first @ first.T / np.trace(first @ first.T), atol=1e-7
        )
        lengths.append(np.linalg.norm(here))
    assert lengths[1] == pytest.approx(3.0 * lengths[0])


def test_genes_are_found_by_their_ensembl_id(slides, config, tmp_path):
    from spaf_model import Vocabulary

    ids = [f"ENSG{number:011d}" for number in range(24)]
    names = slides[0].var_names.tolist()
    vocabulary = Vocabulary.build(names, scale=np.ones(24, np.float32), gene_ids=ids)
    embeddings = make_embeddings([f"alias of {name}" for name in names], gene_ids=[f"{one}.2" for one in ids])
    embeddings.save(tmp_path / "genes")
    table = GeneTableConfig(path=str(tmp_path / "genes"))
    model = new_model(dataclasses.replace(config, gene_embeddings=table), vocabulary)
    assert set_gene_table(model, table)["n_found"] == 24


def test_a_run_starts_from_the_table_trains_it_and_records_it(with_table, corpus, vocabulary, tmp_path):
    pretrain(with_table, corpus.path, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())["gene_embeddings"]
    assert record["sha256"] == content_hash(tmp_path / "genes")
    assert (record["n_genes"], record["n_found"]) == (24, 22)
    assert read_config(tmp_path / "run" / "config.toml") == with_table
    fresh = new_model(with_table, vocabulary)
    set_gene_table(fresh, with_table.gene_embeddings)
    trained = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    began, ended = (model.network.embedding.gene_spatial.weight.detach() for model in (fresh, trained))
    assert 0.0 < float((began - ended).abs().max()) < 0.1
    assert "- Began with the gene embeddings `genes`, trained on" in trained.card
    assert torch.nn.functional.cosine_similarity(began, ended, dim=1)[began.any(dim=1)].mean() > 0.8


def test_a_frozen_table_keeps_its_values(with_table, corpus, vocabulary, tmp_path):
    frozen = dataclasses.replace(with_table.gene_embeddings, trainable=False)
    config = dataclasses.replace(with_table, gene_embeddings=frozen)
    pretrain(config, corpus.path, tmp_path / "run")
    fresh = new_model(config, vocabulary)
    set_gene_table(fresh, frozen)
    trained = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    for name, same in (("gene_spatial", True), ("tokens", False)):
        began, ended = (getattr(model.network.embedding, name).weight for model in (fresh, trained))
        assert torch.equal(began, ended) == same, name


@pytest.mark.parametrize("trainable", [True, False])
def test_a_resumed_run_does_not_read_the_file_again(with_table, corpus, tmp_path, trainable):
    table = dataclasses.replace(with_table.gene_embeddings, trainable=trainable)
    config = dataclasses.replace(with_table, gene_embeddings=table)
    pretrain(config, corpus.path, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    (tmp_path / "killed" / "checkpoints" / "step-000006.pt").unlink()
    (tmp_path / "killed" / "run.json").unlink()
    shutil.rmtree(tmp_path / "genes")
    assert load_checkpoint(tmp_path / "killed" / "checkpoints" / "step-000004.pt")["step"] == 4
    pretrain(config, corpus.path, tmp_path / "killed", resume=True)
    logs, records = [], []
    for run in ("whole", "killed"):
        with (tmp_path / run / "metrics.csv").open(newline="") as file:
            timed = ("tokens_per_second", "seconds")
            logs.append([{name: row[name] for name in row if name not in timed} for row in csv.DictReader(file)])
        records.append(json.loads((tmp_path / run / "run.json").read_text())["gene_embeddings"])
    assert logs[0] == logs[1]
    assert records[0] == records[1]
    assert records[0]["n_found"] == 22
    first, second = (
        SpatialFormer.from_pretrained(tmp_path / run / "model").network.state_dict() for run in ("whole", "killed")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_contrast_starts_from_it_too(stored, corpus, tmp_path):
    (tmp_path / "contrast.toml").write_text(
        f"""
        [model]
        width = 16
        n_layers = 1
        n_heads = 2
        conv_kernel = 3
        colocalization_rank = 4
        pair_input = "separate"
        [sampling]
        input = "patches"
        [objectives.contrast]
        enabled = true
        [objectives.pairs]
        enabled = false
        [gene_embeddings]
        path = "{tmp_path / "genes"}"
        trainable = false
        [run]
        steps = 2
        validation_inputs = 1
        best_metric = "last"
        """
    )
    config = read_config(tmp_path / "contrast.toml")
    pretrain(config, corpus.path, tmp_path / "run")
    model = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    fresh = new_model(config, model.vocabulary)
    set_gene_table(fresh, config.gene_embeddings)
    assert torch.equal(fresh.network.embedding.gene_spatial.weight, model.network.embedding.gene_spatial.weight)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["gene_embeddings"]["n_found"] == 22


def test_without_a_path_nothing_changes(config, vocabulary):
    assert with_gene_table(config.model, GeneTableConfig()) is config.model
    model = new_model(config, vocabulary)
    assert model.network.embedding.gene_spatial is None
    assert set_gene_table(model, config.gene_embeddings) is None


def test_genes_that_the_corpus_has_not_are_one_sentence(config, corpus, tmp_path):
    make_embeddings(["KRT5", "VIM", "ACTB", "ESR1"]).save(tmp_path / "genes")
    config = dataclasses.replace(config, gene_embeddings=GeneTableConfig(path=str(tmp_path / "genes")))
    with pytest.raises(
        InputError, match="None of the 4 genes of .*like KRT5, VIM, ACTB, the corpus like G00, G01, G02"
    ):
        pretrain(config, corpus.path, tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()


def test_options_out_of_range_are_named(config_path):
    for override, sentence in [
        ("gene_embeddings.scale=0", r"gene_embeddings: scale must be above 0"),
        ("gene_embeddings.path=''", r"gene_embeddings: path is empty"),
        ("gene_embeddings.pth=x", r"gene_embeddings\.pth is not an option; did you mean path"),
    ]:
        with pytest.raises(InputError, match=sentence):
            read_config(config_path, overrides=[override])

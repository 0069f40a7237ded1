import numpy as np
import pytest

from spaf_train import VocabularyConfig, vocabulary_from_corpus


def test_scale_is_the_mean_of_the_cells_that_have_the_gene(corpus, vocabulary):
    values = {gene: [] for gene in corpus.genes}
    for ref in corpus.block_refs("train"):
        block = corpus.read(ref)
        for entry in range(block.indptr[block.n_owned]):
            values[corpus.genes[block.genes[entry]]].append(block.counts[entry])
    tokens = vocabulary.match(corpus.genes).token_ids
    assert (tokens >= 0).all()
    for gene, token in zip(corpus.genes, tokens, strict=True):
        assert vocabulary.scale[token] == pytest.approx(np.mean(values[gene]), rel=1e-5)


def test_a_gene_never_seen_has_scale_one(corpus, monkeypatch):
    statistics = corpus.gene_statistics.copy()
    statistics.loc["G03", "nonzero_mean"] = np.nan
    monkeypatch.setattr(type(corpus), "gene_statistics", property(lambda self: statistics))
    vocabulary = vocabulary_from_corpus(corpus)
    assert vocabulary.scale[vocabulary.tokens.index("G03")] == 1.0


def test_context_names_come_from_slides_and_configuration(corpus):
    vocabulary = vocabulary_from_corpus(corpus, VocabularyConfig(tissue=("Skin", "Breast"), assay=("MERFISH",)))
    assert set(vocabulary.context["tissue"]) == {"unknown", "Breast", "Lung", "Skin"}
    assert set(vocabulary.context["assay"]) == {"unknown", "Xenium", "MERFISH"}
    assert set(vocabulary.context["species"]) == {"unknown", "Human"}

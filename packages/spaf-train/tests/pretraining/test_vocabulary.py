import numpy as np
import pytest
import torch

from spaf_data import write_corpus
from spaf_model import InputError, SpatialFormer
from spaf_train import VocabularyConfig, presets, pretrain, read_config, vocabulary_from_corpus


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


def test_unknown_is_offered_where_it_is_trained(slides, tmp_path, config_path, corpus):
    """By dropout of context, or because training slides are of unknown condition; else it is no word of the model."""
    assert set(vocabulary_from_corpus(corpus, context_dropout=0.1).context["tissue"]) == {"unknown", "Breast", "Lung"}
    plain = vocabulary_from_corpus(corpus, context_dropout=0.0)
    assert all("unknown" not in names for names in plain.context.values())
    with pytest.raises(InputError, match="knows no tissue 'unknown'; it knows: Breast, Lung"):
        plain.context_id("tissue", "unknown")
    changed = [slide.copy() for slide in slides]
    changed[0].obs["condition"] = "unknown"
    partly = vocabulary_from_corpus(write_corpus(changed, tmp_path / "corpus"), context_dropout=0.0)
    assert set(partly.context["condition"]) == {"unknown", "Disease"}
    assert "unknown" not in partly.context["tissue"]
    changed[1].obs["assay"] = "unknown"
    changed[1].obs["split"] = "validation"  # what is held out trains nothing
    held_out = write_corpus(changed, tmp_path / "held-out")
    with pytest.raises(InputError, match="The assay of slide 'second' is unknown, and training would never see"):
        vocabulary_from_corpus(held_out, context_dropout=0.0)
    assert "unknown" in vocabulary_from_corpus(held_out, context_dropout=0.1).context["assay"]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_every_word_of_context_that_a_run_offers_has_been_trained(config_path, corpus, tmp_path, dropout):
    overrides = [f"sampling.context_dropout={dropout}", "optimizer.weight_decay=0.0", "sampling.window_blocks=99"]
    config = read_config(config_path, overrides=overrides)
    pretrain(config, corpus.path, tmp_path / "run")
    model = SpatialFormer.from_pretrained(tmp_path / "run" / "model")
    began = SpatialFormer(config.model, model.vocabulary, seed=config.seed).network.embedding.tokens.weight
    for names in model.vocabulary.context.values():
        assert ("unknown" in names) == (dropout > 0.0)
        for token in names.values():
            assert not torch.equal(model.network.embedding.tokens.weight[token], began[token])


def test_the_presets_train_unknown():
    # Embeddings of scGPT-spatial read no context, so nobody has to say that it is unknown.
    for config in (read_config(name) for name in presets()):
        assert (config.sampling.context_dropout > 0.0) == (config.family == "spatialformer")

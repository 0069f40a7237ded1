import numpy as np
import pytest

from spaf_model import InputError, Vocabulary
from spaf_train import BatchStream, ObjectivesConfig, SamplingConfig
from spaf_train.stream.contexts import with_known_contexts


def make(corpus, **names):
    return Vocabulary.build(corpus.genes, scale=np.ones(len(corpus.genes)), **names)


def test_names_that_are_not_known_become_unknown(corpus, caplog):
    known = make(corpus, tissue=("Breast",), species=("Human",), condition=("Disease",), assay=("Xenium",))
    same = with_known_contexts(corpus, known, {})
    assert same.slides["first"] == corpus.slides["first"]
    assert same.slides["second"]["tissue"] == "unknown"
    assert corpus.slides["second"]["tissue"] == "Lung"
    assert "tissue 'Lung' of slide 'second'" in caplog.text
    assert [ref.key for ref in same.block_refs()] == [ref.key for ref in corpus.block_refs()]


def test_given_names_replace_those_of_the_slides(corpus):
    known = make(corpus, tissue=("Breast",), species=("Human",), condition=("Disease",), assay=("Xenium",))
    given = with_known_contexts(corpus, known, {"tissue": "Breast", "assay": None})
    assert {context["tissue"] for context in given.slides.values()} == {"Breast"}
    with pytest.raises(InputError, match="knows no species 'Yeast'"):
        with_known_contexts(corpus, known, {"species": "Yeast"})


def without_unknown(vocabulary):
    context = {
        kind: {name: token for name, token in names.items() if name != "unknown"}
        for kind, names in vocabulary.context.items()
    }
    return Vocabulary(
        vocabulary.tokens, special=vocabulary.special, context=context, scale=vocabulary.scale, gene_ids=None
    )


def test_vocabularies_without_unknown_need_a_name(corpus, vocabulary, read_by):
    published = without_unknown(make(corpus, tissue=("Breast",), species=("Human",), condition=("Disease",)))
    with pytest.raises(
        InputError, match="Slide 'first': The model knows no assay 'Xenium'.*--assay on the command line"
    ):
        with_known_contexts(corpus, published, {})
    # Nothing is dropped, so the loader has no need of it either.
    complete = without_unknown(vocabulary)
    data = with_known_contexts(corpus, complete, {})
    stream = BatchStream(data, read_by(complete), SamplingConfig(), ObjectivesConfig(), split="train", seed=0)
    assert stream.next_step()
    with pytest.raises(InputError, match="knows no condition 'unknown'"):
        BatchStream(
            data, read_by(complete), SamplingConfig(context_dropout=0.1), ObjectivesConfig(), split="train", seed=0
        )

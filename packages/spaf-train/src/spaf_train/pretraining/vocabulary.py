"""The vocabulary of a new model, from the statistics of a corpus."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from spaf_model import CONTEXT_KINDS, InputError, SpatialFormer, Vocabulary
from spaf_train.stream.contexts import UNKNOWN

if TYPE_CHECKING:
    from spaf_data import Corpus
    from spaf_model import Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Names of context that get a token although the corpus has no slide of them yet."""

    tissue: tuple[str, ...] = ()
    condition: tuple[str, ...] = ()
    species: tuple[str, ...] = ()
    assay: tuple[str, ...] = ()


def vocabulary_from_corpus(
    corpus: Corpus,
    config: VocabularyConfig = VocabularyConfig(),
    *,
    context_dropout: float = 1.0,
    family: type[Model[Any, Any]] = SpatialFormer,
) -> Vocabulary:
    """Build the vocabulary of a new model.

    Every gene of the corpus gets a token, and so does every species, assay, tissue and condition of its slides and of
    the configuration. The scale of a gene is the mean of its counts over the cells of the training split that have
    it, and 1 where no cell has it. The median, as published, is 1 for nearly all genes of imaging data, so that it
    scales nothing; the mean tells a gene that is high in this cell from one that is high everywhere.

    Parameters
    ----------
    corpus
        What the model will be trained on.
    config
        More names of context.
    context_dropout
        Chance that a word of context is given as ``unknown`` in training. With 0 only kinds of which a training slide
        is unknown have such a token: another would be offered with the random vector that it began with.
    family
        Of the model: how its vocabularies are laid out, and whether they know context.

    Raises
    ------
    InputError
        If a slide is of unknown tissue, condition, species or assay, and training would never see that.
    """
    means = corpus.gene_statistics["nonzero_mean"].reindex(corpus.genes).to_numpy(dtype=np.float64)
    scale = np.where(np.isfinite(means) & (means > 0.0), means, 1.0).astype(np.float32)

    def names(kind: str) -> set[str]:
        return {str(slide[kind]) for slide in corpus.slides.values()} | set(getattr(config, kind))

    trained = {ref.slide for ref in corpus.block_refs() if ref.split == "train"}
    unknown = [
        kind
        for kind in CONTEXT_KINDS
        if context_dropout > 0.0 or any(str(corpus.slides[slide][kind]) == UNKNOWN for slide in trained)
    ]
    vocabulary = family.new_vocabulary(
        corpus.genes,
        scale=scale,
        gene_ids=corpus.gene_ids,
        tissue=names("tissue") - {UNKNOWN},
        condition=names("condition") - {UNKNOWN},
        species=names("species") - {UNKNOWN},
        assay=names("assay") - {UNKNOWN},
        unknown=unknown,
    )
    for slide, context in corpus.slides.items():
        for kind in CONTEXT_KINDS:
            if vocabulary.context[kind] and str(context[kind]) == UNKNOWN and kind not in unknown:
                raise InputError(
                    f"The {kind} of slide {slide!r} is unknown, and training would never see such a cell; say what it "
                    f"is when the corpus is built (--{kind}), or train with context_dropout above 0."
                )
    return vocabulary

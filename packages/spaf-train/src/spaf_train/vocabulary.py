"""The vocabulary of a new model, from the statistics of a corpus."""

from __future__ import annotations

import dataclasses

import numpy as np

from spaf_data import Corpus
from spaf_model import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Names of context that get a token although the corpus has no slide of them yet."""

    species: tuple[str, ...] = ()
    assay: tuple[str, ...] = ()
    tissue: tuple[str, ...] = ()
    condition: tuple[str, ...] = ()


def vocabulary_from_corpus(corpus: Corpus, config: VocabularyConfig = VocabularyConfig()) -> Vocabulary:
    """Build the vocabulary of a new model.

    Every gene of the corpus gets a token, and so does every species, assay, tissue and condition of its slides and of
    the configuration. The scale of a gene is the mean of its counts over the cells of the training split that have
    it, and 1 where no cell has it. The median, as published, is 1 for nearly all genes of imaging data, so that it
    scales nothing; the mean tells a gene that is high in this cell from one that is high everywhere.
    """
    means = corpus.gene_statistics["nonzero_mean"].reindex(corpus.genes).to_numpy(dtype=np.float64)
    scale = np.where(np.isfinite(means) & (means > 0.0), means, 1.0).astype(np.float32)

    def names(kind: str) -> set[str]:
        return {str(slide[kind]) for slide in corpus.slides.values()} | set(getattr(config, kind))

    return Vocabulary.build(
        corpus.genes,
        scale=scale,
        gene_ids=corpus.gene_ids,
        species=names("species") - {"unknown"},
        assay=names("assay") - {"unknown"},
        tissue=names("tissue") - {"unknown"},
        condition=names("condition") - {"unknown"},
    )

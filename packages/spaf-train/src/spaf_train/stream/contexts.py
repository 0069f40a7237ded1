"""Names of tissue, condition, species and assay of a corpus, as a model that was made for other data knows them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaf_data import Corpus
from spaf_model import CONTEXT_KINDS, InputError, Vocabulary

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"


def context_ids(vocabulary: Vocabulary, names: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the ids of names of a context, (4,); -1 for a kind that is not given, or of which the model reads none.

    Raises
    ------
    InputError
        If a name is not known.
    """
    ids = [
        vocabulary.context_id(kind, str(names[kind])) if kind in names and vocabulary.context[kind] else -1
        for kind in CONTEXT_KINDS
    ]
    return np.array(ids, dtype=np.int64)


class _Relabelled(Corpus):
    """A corpus whose slides have other contexts than its manifest says."""

    def __init__(self, corpus: Corpus, slides: dict[str, dict[str, str]]) -> None:
        self.path = corpus.path
        self.manifest = corpus.manifest
        self._slides = slides

    @property
    def slides(self) -> dict[str, dict[str, str]]:
        return {name: dict(context) for name, context in self._slides.items()}


def with_known_contexts(
    corpus: Corpus,
    vocabulary: Vocabulary,
    given: Mapping[str, str | None],
    *,
    needed: Collection[str] = CONTEXT_KINDS,
) -> Corpus:
    """Return a corpus whose slides have only contexts that a vocabulary knows.

    A name that the vocabulary does not know becomes ``unknown``, with a warning.

    Parameters
    ----------
    corpus
        The data.
    vocabulary
        Of the model.
    given
        For tissue, condition, species or assay a name that replaces that of every slide.
    needed
        Kinds that the model needs (`Model.needed_context`); names of others stay as they are, and so do all where the
        vocabulary knows no context.

    Raises
    ------
    InputError
        If a given name is not known, or a slide's name is not known and the vocabulary has no ``unknown``.
    """
    for kind, name in given.items():
        if name is not None:
            vocabulary.context_id(kind, name)
    replaced: dict[str, str] = {}
    slides = {}
    for slide, context in corpus.slides.items():
        slides[slide] = {kind: given.get(kind) or str(context[kind]) for kind in CONTEXT_KINDS}
        for kind, name in slides[slide].items():
            if kind not in needed or not any(vocabulary.context.values()):
                continue
            try:
                vocabulary.context_id(kind, name)
            except InputError as error:
                if UNKNOWN not in vocabulary.context[kind]:
                    raise InputError(
                        f"Slide {slide!r}: {str(error).rstrip('.')}; choose one of them with {kind}= "
                        f"(--{kind} on the command line)."
                    ) from error
                replaced[f"{kind} {name!r}"] = slide
                slides[slide][kind] = UNKNOWN
    for what, slide in replaced.items():
        logger.warning("The model does not know the %s of slide %r; it is read as unknown.", what, slide)
    return _Relabelled(corpus, slides)

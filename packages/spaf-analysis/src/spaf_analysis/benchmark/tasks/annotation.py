"""Labels carried from a reference to a query, by what `annotate` chooses where it has an embedding."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaf_analysis.annotate import annotate
from spaf_analysis.annotate.compute import COUNTS, NEAREST, PCA
from spaf_analysis.benchmark.base import Judged, Method, Settings, Task
from spaf_analysis.benchmark.tasks._predictions import MAJORITY, check_parts, judged_predictions, majority
from spaf_analysis.errors import InputError

if TYPE_CHECKING:
    from spaf_analysis.benchmark.data import Data

_KEY = "X_benchmark"
_BASELINES = (COUNTS, PCA, NEAREST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation(Task):
    """Each part labelled by the others, or the whole query by the reference that the data set names.

    A method is annotated with ``auto``: the best on held-out parts of the reference among those that read its
    embedding and those that do not. Baselines are the fixed methods that need no embedding.
    """

    name = "annotation"
    title = "Labels from a reference"
    needs = ("label",)

    def judge(self, data: Data, method: Method, settings: Settings) -> Judged:
        """Judge what `annotate` makes of the embedding beside what it makes of counts alone."""
        codes, names = data.codes(str(data.options.label))
        rows = np.flatnonzero(codes >= 0)
        if data.reference is None:
            folds = data.folds(rows, seed=settings.seed)
            check_parts(folds, data)
        else:
            folds = np.zeros(rows.size, dtype=np.int64)
        embeddings = _embeddings(data, method)
        chosen: list[str] = []
        found = {method.name: _annotated(data, rows, folds, names, "auto", embeddings, settings.seed, chosen)}
        for name in _BASELINES:
            fixed = partial(_annotated, data, rows, folds, names, name, None, settings.seed, [])
            found[name] = data.once(("annotation", name, settings.seed), fixed)
        if data.reference is None:
            found[MAJORITY] = majority(codes[rows], folds)
        said = f"{method.name}: auto took {', '.join(dict.fromkeys(chosen))}."
        # A class of the reference that no cell of the query has is one more column of the confusion matrix.
        return judged_predictions(data, rows, codes[rows], found, len(names) + 1, settings, notes=(said,))


def _embeddings(data: Data, method: Method) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    if data.reference is None:
        return method.embed(data), None
    return method.embed_beside(data)


def _annotated(
    data: Data,
    rows: NDArray[np.int64],
    folds: NDArray[np.int64],
    names: list[str],
    how: str,
    embeddings: tuple[NDArray[np.float64], NDArray[np.float64] | None] | None,
    seed: int,
    chosen: list[str],
) -> NDArray[np.integer]:
    """Annotate every part; classes that the query does not name are one after its own."""
    label, donor = str(data.options.label), data.options.donor
    found = np.full(rows.size, len(names))
    for fold in np.unique(folds):
        held = folds == fold
        query = data.taken(rows[held])
        reference = data.taken(rows[~held]) if data.reference is None else data.reference.copy()
        if embeddings is not None:
            query.obsm[_KEY] = embeddings[0][rows[held]]
            reference.obsm[_KEY] = embeddings[0][rows[~held]] if embeddings[1] is None else embeddings[1]
        of_reference = donor if donor is not None and donor in reference.obs else None
        try:
            made = annotate(
                query, reference, label, method=how, key=None if embeddings is None else _KEY, donor=of_reference,
                unknown=0.0, seed=seed,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"part {int(fold)} of {data.options.parts} cannot be annotated: {error}") from error
        place = np.array([names.index(name) if name in names else len(names) for name in made.classes])
        found[held] = place[made.codes]
        chosen.append(made.method)
    return found

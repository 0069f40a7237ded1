"""What can be chosen when gene embeddings are made."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import spaf_data
from spaf_train._checks import require, require_at_least
from spaf_train._options import check_types

Null = Literal["cells", "abundance"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneEmbeddingOptions:
    """What is counted and how it becomes vectors.

    The defaults are those that best said which genes lie together in a held-out region
    (``benchmarks/gene_embedding_links.py``).
    """

    dimensions: int = 32  # length of a vector
    radius: float = spaf_data.defaults.PROXIMITY_RADIUS  # um within which two transcripts are proximal
    null: Null = "abundance"  # what chance is: see `association`
    across_cells: bool = False  # whether transcripts of two different cells can be proximal
    pseudo_count: float = 5.0  # added to observed and expected pairs of transcripts
    min_transcripts: int = 20  # a gene with fewer has no vector
    min_qv: float = spaf_data.defaults.MIN_QV  # transcripts of lower quality are not looked at

    def __post_init__(self) -> None:
        check_types(self)
        require_at_least("dimensions", self.dimensions, 1)
        require(0.0 < self.radius < float("inf"), f"radius must be above 0 um, not {self.radius}.")
        check_null(self.null)
        check_pseudo_count(self.pseudo_count)
        require_at_least("min_transcripts", self.min_transcripts, 1)


def check_null(null: str) -> None:
    """Raise `InputError` unless there is a null of this name."""
    require(null in get_args(Null), f"null must be one of {', '.join(get_args(Null))}, not {null!r}.")


def check_pseudo_count(pseudo_count: float) -> None:
    """Raise `InputError` unless this can be added to counts."""
    require(0.0 < pseudo_count < float("inf"), f"pseudo_count must be above 0, not {pseudo_count}.")

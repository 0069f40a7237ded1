"""Choices behind a report."""

from dataclasses import dataclass

from spaf_analysis.defaults import MAX_PAIRS, N_REPLICATES
from spaf_analysis.errors import InputError
from spaf_analysis.keys import EMBEDDING


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report shows and how thoroughly."""

    key: str = EMBEDDING  # the embedding in obsm
    gene: str | None = None  # shown on the tissue; None: the one with the strongest spatial pattern
    resolution: float = 1.0  # of the Leiden clusters; higher gives more
    n_domains: int | None = None  # number of niches; None: the one halves of the tissue agree on
    label: str | None = None  # column of obs with regions, which niches are judged against
    cell_type: str | None = None  # column of obs with cell types; None: the clusters of the embedding
    batch: str | None = None  # column of obs with what is to be mixed; None: the slides
    max_pairs: int = MAX_PAIRS  # positive cell pairs judged at each radius
    n_replicates: int = N_REPLICATES  # resampled tissues behind each interval
    umap_cells: int = 50_000  # a larger table is subsampled for the UMAP
    max_slides: int = 4  # slides drawn; all are analysed
    seed: int = 0  # of everything random

    def __post_init__(self) -> None:
        for name in ("max_pairs", "n_replicates", "umap_cells", "max_slides"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.n_domains is not None and self.n_domains < 2:
            raise InputError(f"n_domains must be at least 2, not {self.n_domains}.")
        if not self.resolution > 0:
            raise InputError(f"resolution must be above 0, not {self.resolution:g}.")

"""On how much a model is judged."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from spaf_train._checks import require, require_at_least
from spaf_train._options import check_types
from spaf_train.evaluation.pairs import check_radii, radii_of

if TYPE_CHECKING:
    from spaf_data import Distances

TRAIN = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """On how much a model is judged."""

    split: str = "validation"  # cells to judge on; nothing is fitted on them
    max_cells: int = 5_000  # most cells whose genes are judged, in whole blocks; pairs are drawn from all cells
    max_fitted_cells: int = 20_000  # most training cells that baselines are fitted on, in whole tiles of tissue
    radii: tuple[float, ...] | None = None  # um, largest distances of neighbours; None: `radii_of` the corpus
    max_pairs: int = 2_000  # most pairs of neighbours at each radius
    threshold: float = 0.5  # of the probability that two cells are neighbours, for specificity
    masked_fraction: float = 0.15  # chance of a gene to be hidden
    max_gene_pairs: int = 50_000  # about how many gene pairs are judged
    tower: bool = True  # train a small network by contrast of neighbours, as a baseline; some ten seconds
    n_replicates: int = 1_000  # resampled tissues behind each interval
    seed: int = 0  # of the draws of cells, pairs, hidden genes and tissues

    def __post_init__(self) -> None:
        check_types(self)
        require(
            self.split != TRAIN,
            "split must not be train: the baselines are fitted on the training cells, and the model was trained on "
            "them; choose a split that was held out, such as validation.",
        )
        for name in ("max_cells", "max_fitted_cells", "max_pairs", "max_gene_pairs", "n_replicates"):
            require_at_least(name, getattr(self, name), 1)
        require(
            self.radii is None or (bool(self.radii) and all(radius > 0.0 for radius in self.radii)),
            "radii must be above 0 um.",
        )
        require(0.0 < self.threshold < 1.0, f"threshold must be above 0 and below 1, not {self.threshold}.")
        require(
            0.0 < self.masked_fraction < 1.0,
            f"masked_fraction must be above 0 and below 1, not {self.masked_fraction}.",
        )
        require_at_least("seed", self.seed, 0)

    def following(self, distances: Distances) -> EvaluationOptions:
        """Return the same with radii that fit the distances of a corpus.

        Raises
        ------
        InputError
            If a radius that is given reaches the hard negatives.
        """
        if self.radii is None:
            return dataclasses.replace(self, radii=radii_of(distances))
        check_radii(self.radii, distances)
        return self

"""A pair head without weights of its own: how likely two cells are neighbours, by the cosine of their embeddings.

The cosine is seen from the centre of the slide, so that it means the same on a slide or a platform that the model never
saw; slope and offset, fitted on pairs of training cells, make a probability of it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from spaf_data import write_text
from spaf_model import InputError, model_path

if TYPE_CHECKING:
    from spaf_train.evaluation.cell_pairs import PairScore
    from spaf_train.evaluation.pairs import MatchedPairs

PAIRS_FILE = "pairs.json"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibratedCosine:
    """The logit that two cells are neighbours is ``slope * cosine + offset``."""

    slope: float
    offset: float
    pooling: str  # the embedding, by a method of the model
    radius: float  # um, within which cells were neighbours

    @classmethod
    def fit(cls, score: PairScore, pairs: MatchedPairs, radius: float, *, pooling: str) -> CalibratedCosine:
        """Fit slope and offset on neighbours within a radius (um) and their negatives, both classes of equal weight."""
        left, right, labels = pairs.labelled(radius)
        cosines = np.asarray(score(left, right), dtype=np.float64)[:, None]
        # Hardly any penalty: one slope needs none, and the cosine is small.
        fitted = LogisticRegression(C=1e4, class_weight="balanced", max_iter=1_000).fit(cosines, labels)
        return cls(
            slope=float(fitted.coef_[0, 0]), offset=float(fitted.intercept_[0]), pooling=pooling, radius=float(radius)
        )

    def probability(self, cosines: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability of being neighbours at cosines."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * np.asarray(cosines, dtype=np.float64) + self.offset))))

    def save(self, folder: Path) -> None:
        """Write ``pairs.json`` into a model directory."""
        content = {"format_version": FORMAT_VERSION, "head": "centred cosine", **dataclasses.asdict(self)}
        write_text(folder / PAIRS_FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def find(cls, folder: str | Path) -> CalibratedCosine | None:
        """Read the head of a model directory; None where it has none.

        Raises
        ------
        InputError
            If the file is damaged or of a newer format.
        """
        path = model_path(folder) / PAIRS_FILE
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            number = int(content["format_version"])
            head = cls(
                slope=float(content["slope"]), offset=float(content["offset"]), pooling=str(content["pooling"]),
                radius=float(content["radius"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: {error!r}.") from error
        if number > FORMAT_VERSION:
            raise InputError(
                f"{path} has format version {number}, and this spaf-train reads up to {FORMAT_VERSION}: install a "
                "newer one."
            )
        if not all(map(math.isfinite, (head.slope, head.offset))):
            raise InputError(f"{path} cannot be used: its slope or offset is not finite.")
        return head

"""What experts are used for: the report of a router."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaf_model.errors import InputError


@dataclasses.dataclass(frozen=True)
class RoutingReport:
    """Where tokens went."""

    technologies: list[str]
    load: NDArray[np.float64]  # (E,), share of the tokens that each expert got; all together 1
    by_technology: NDArray[np.float64]  # (T, E), the same for the tokens of each technology; NaN where there are none
    mutual_information: float  # between technology and expert, bits; 0 where an expert tells nothing of the technology
    technology_entropy: float  # bits: the most that it can be

    @classmethod
    def of_counts(cls, counts: NDArray[Any], technologies: Sequence[str]) -> RoutingReport:
        """Make the report of counts.

        Parameters
        ----------
        counts
            How many tokens of each technology went to each expert, (T, E).
        technologies
            Their names.

        Raises
        ------
        InputError
            If there are no tokens, or another number of technologies.

        Examples
        --------
        >>> report = RoutingReport.of_counts(np.array([[10, 0], [0, 10]]), ["visium", "xenium"])
        >>> report.mutual_information
        1.0
        """
        counts = np.asarray(counts, dtype=np.float64)
        if counts.ndim != 2 or counts.shape[0] != len(technologies):
            raise InputError(
                f"counts must have a row for each of {len(technologies)} technologies, not {counts.shape}."
            )
        total = counts.sum()
        if not total > 0:
            raise InputError("There are no tokens whose routes could be reported.")
        of_technology = counts.sum(axis=1)
        with np.errstate(invalid="ignore"):
            by_technology = counts / of_technology[:, None]
        load = counts.sum(axis=0) / total
        joint = counts / total
        apart = np.outer(of_technology / total, load)
        there = joint > 0
        return cls(
            technologies=list(technologies),
            load=load,
            by_technology=by_technology,
            mutual_information=max(float((joint[there] * np.log2(joint[there] / apart[there])).sum()), 0.0),
            technology_entropy=_entropy(of_technology / total),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        shares = {
            name: [round(float(share), 4) for share in row] if np.isfinite(row).all() else None
            for name, row in zip(self.technologies, self.by_technology, strict=True)
        }
        return {
            "load": [round(float(share), 4) for share in self.load],
            "by_technology": shares,
            "mutual_information_bits": round(self.mutual_information, 4),
            "technology_entropy_bits": round(self.technology_entropy, 4),
        }

    def sentence(self) -> str:
        """Say it in a sentence, for a card."""
        return (
            f"Of the tokens, each of the {self.load.size} experts got {self.load.min():.0%} to {self.load.max():.0%}; "
            f"the expert tells {self.mutual_information:.3f} bits of the technology, which has "
            f"{self.technology_entropy:.3f}."
        )


def _entropy(shares: NDArray[np.float64]) -> float:
    there = shares[shares > 0]
    return max(float(-(there * np.log2(there)).sum()), 0.0)

"""Sizes and shares of a simulated slide."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spaf_data import defaults
from spaf_data.errors import InputError

PATTERNS = ("nuclear", "perinuclear", "peripheral", "central", "polarised", "punctate")


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """The recipe of a simulated slide; the defaults follow published Xenium sections."""

    n_cells: int
    n_genes: int
    seed: int
    n_types: int = 6  # cell types
    n_domains: int = 4  # kinds of tissue domain, each with its own composition of types
    domain_size: float = 150.0  # um, distance between centres of domain patches
    depth: float = defaults.SIMULATED_DEPTH  # median transcripts of a cell
    depth_sigma: float = 0.5  # of the log of a cell's depth
    spacing: float = 13.0  # um between cell centres: about 6,000 cells per mm2
    n_colocalized_pairs: int = 5  # gene pairs that share a spot of the cell
    n_abundant_pairs: int = 5  # gene pairs that are merely frequent
    spot_fraction: float = 0.8  # of the transcripts of a planted gene lie in the spot
    spot_radius: float = 1.0  # um, standard deviation of a spot in each direction
    control_fraction: float = 0.005
    low_quality_fraction: float = 0.14
    unassigned_fraction: float = 0.05
    n_pattern_genes: int = 0  # genes of each pattern inside cells (`spaf_data.simulate.patterns`)
    pattern_fraction: float = 0.5  # of the transcripts of such a gene lie where its pattern says

    def __post_init__(self) -> None:
        if self.n_pattern_genes < 0:
            raise InputError(f"n_pattern_genes must not be negative, not {self.n_pattern_genes}")
        planted = 2 * (self.n_colocalized_pairs + self.n_abundant_pairs) + len(PATTERNS) * self.n_pattern_genes
        for name in ("n_cells", "n_types", "n_domains"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("domain_size", "depth", "spacing", "spot_radius"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in (
            "spot_fraction", "control_fraction", "low_quality_fraction", "unassigned_fraction", "pattern_fraction"
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        if self.n_genes < planted + self.n_types + self.n_domains:
            raise InputError(
                f"n_genes must be at least {planted + self.n_types + self.n_domains} for {planted} planted genes and "
                f"a marker for each of {self.n_types} cell types and {self.n_domains} domains, not {self.n_genes}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe by name; of patterns only where there are some."""
        recipe = asdict(self)
        if not self.n_pattern_genes:
            del recipe["n_pattern_genes"], recipe["pattern_fraction"]
        return recipe

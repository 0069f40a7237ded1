"""Objectives of pre-training: what is hidden or asked, the loss, and how several losses become one."""

from __future__ import annotations

import dataclasses

from spaf_train._checks import require
from spaf_train.objectives.colocalization import (
    ColocalizationConfig,
    ColocalizedGenes,
    colocalized_genes,
    focal_loss,
)
from spaf_train.objectives.masked_genes import MaskedGenes, MaskedGenesConfig, mask_genes, masked_genes_loss
from spaf_train.objectives.pairs import PairLabels, PairsConfig, pairs_loss
from spaf_train.objectives.weighting import ObjectiveWeighting, WeightingConfig

__all__ = [
    "ColocalizationConfig",
    "ColocalizedGenes",
    "MaskedGenes",
    "MaskedGenesConfig",
    "ObjectiveWeighting",
    "ObjectivesConfig",
    "PairLabels",
    "PairsConfig",
    "WeightingConfig",
    "colocalized_genes",
    "focal_loss",
    "mask_genes",
    "masked_genes_loss",
    "pairs_loss",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """Which objectives are trained, and how."""

    masked_genes: MaskedGenesConfig = MaskedGenesConfig()
    colocalization: ColocalizationConfig = ColocalizationConfig()
    pairs: PairsConfig = PairsConfig()
    weighting: WeightingConfig = WeightingConfig()

    def __post_init__(self) -> None:
        require(
            bool(self.enabled), "objectives must leave at least one of masked_genes, colocalization, pairs enabled."
        )

    @property
    def enabled(self) -> list[str]:
        """Names of the objectives that are trained, in the order of the metrics."""
        switches = {
            "masked_genes": self.masked_genes.enabled,
            "colocalization": self.colocalization.enabled,
            "pairs": self.pairs.enabled,
        }
        return [name for name, enabled in switches.items() if enabled]

    def factors(self, progress: float) -> dict[str, float]:
        """Return the factor of each enabled objective at a point of the run, from 0 (start) to 1 (end)."""
        ramp = 1.0 - progress if self.colocalization.ramp_down else 1.0
        factors = {
            "masked_genes": self.masked_genes.weight,
            "colocalization": self.colocalization.weight * ramp,
            "pairs": self.pairs.weight,
        }
        return {name: factors[name] for name in self.enabled}

"""A model of one's own tissue: place from what neighbours share, identity from what a cell expresses."""

from spaf_model.tissue.config import NetworkConfig, TissueConfig
from spaf_model.tissue.model import TissueModel
from spaf_model.tissue.neighbours import closed_form, neighbour_graph, reach_of
from spaf_model.tissue.niche import niche_state
from spaf_model.tissue.standardise import PearsonResiduals, ZScores

__all__ = [
    "NetworkConfig",
    "PearsonResiduals",
    "TissueConfig",
    "TissueModel",
    "ZScores",
    "closed_form",
    "neighbour_graph",
    "niche_state",
    "reach_of",
]

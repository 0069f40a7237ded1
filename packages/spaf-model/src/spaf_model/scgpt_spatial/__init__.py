"""scGPT-spatial: its configuration, tokeniser, network, importer of published checkpoints, and the model."""

from spaf_model.scgpt_spatial.batch import ValueBatch
from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig
from spaf_model.scgpt_spatial.decoders import CellDecoder, CountOutput
from spaf_model.scgpt_spatial.experts import Expert, ExpertMixture, SingleExpert, TokensToDecode
from spaf_model.scgpt_spatial.expression import NicheExpression
from spaf_model.scgpt_spatial.inference import InferenceEncoder
from spaf_model.scgpt_spatial.mixing import NeighbourMix, Surroundings
from spaf_model.scgpt_spatial.model import ScGPTSpatial
from spaf_model.scgpt_spatial.neighbourhood import distance_weights, neighbourhood_weights, relative_distances
from spaf_model.scgpt_spatial.network import ScGPTSpatialNetwork
from spaf_model.scgpt_spatial.routing import RoutingReport
from spaf_model.scgpt_spatial.tokeniser import (
    HIDDEN_VALUE,
    PREFIX_VALUE,
    ScGPTSpatialTokeniser,
    ValuedCells,
    technology_names,
)
from spaf_model.scgpt_spatial.values import GeneValues, gene_values

__all__ = [
    "HIDDEN_VALUE",
    "PREFIX_VALUE",
    "CellDecoder",
    "CountOutput",
    "Expert",
    "ExpertMixture",
    "GeneValues",
    "InferenceEncoder",
    "NeighbourMix",
    "NicheExpression",
    "RoutingReport",
    "ScGPTSpatial",
    "ScGPTSpatialConfig",
    "ScGPTSpatialNetwork",
    "ScGPTSpatialTokeniser",
    "SingleExpert",
    "Surroundings",
    "TokensToDecode",
    "ValueBatch",
    "ValuedCells",
    "distance_weights",
    "gene_values",
    "neighbourhood_weights",
    "relative_distances",
    "technology_names",
]

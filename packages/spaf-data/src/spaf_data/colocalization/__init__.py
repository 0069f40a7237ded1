"""Which genes lie together inside cells.

Two methods over one graph, in which the transcripts of a cell are joined when they lie within a radius of each other:
communities of that graph (`community_pairs`), and joins against shuffled labels (`pair_enrichment`). `colocalize`
writes either into the AnnData of a slide.
"""

from spaf_data.colocalization.absent import leave_uncolocalized
from spaf_data.colocalization.api import Method, colocalize
from spaf_data.colocalization.cells import CellTranscripts, select_cells
from spaf_data.colocalization.communities import CellPairs, community_pairs
from spaf_data.colocalization.enriched import keep_enriched
from spaf_data.colocalization.enrichment import PairEnrichment, enrichment_p, pair_enrichment
from spaf_data.colocalization.gene_proximity import gene_proximity
from spaf_data.colocalization.graph import proximity_graph
from spaf_data.colocalization.louvain import louvain, modularity
from spaf_data.colocalization.proximal_pairs import GeneProximity
from spaf_data.colocalization.robustness import robustness
from spaf_data.colocalization.table import gene_pair_table

__all__ = [
    "CellPairs",
    "CellTranscripts",
    "GeneProximity",
    "Method",
    "PairEnrichment",
    "colocalize",
    "community_pairs",
    "enrichment_p",
    "gene_pair_table",
    "gene_proximity",
    "keep_enriched",
    "leave_uncolocalized",
    "louvain",
    "modularity",
    "pair_enrichment",
    "proximity_graph",
    "robustness",
    "select_cells",
]

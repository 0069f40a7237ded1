"""Names of the keys that this package writes into an AnnData, in one place.

``obs``
    ``slide``, ``tissue``, ``condition``, ``species``, ``assay`` (categorical, one value a slide; a table from
    `read_counts` may hold several slides), ``split``
    (categorical: ``train``, ``validation`` or ``gap``), ``n_transcripts``, ``nucleus_fraction`` and ``area``.
``var``
    ``gene_ids``.
``obsm``
    ``spatial`` (centroids in um), ``spatial_own_frame`` (where cells have frames of their own), ``colocalization``
    (cells x gene pairs, CSR).
``obsp``
    ``spatial_connectivities``, ``spatial_distances``.
``uns``
    ``spaf`` (versions, parameters, account), ``colocalization``, ``colocalization_enrichment`` (with the statistics of
    the slide), ``spatial_neighbors``.
"""

SLIDE = "slide"
TISSUE = "tissue"
CONDITION = "condition"
SPECIES = "species"
ASSAY = "assay"
CONTEXT = (TISSUE, CONDITION, SPECIES, ASSAY)
UNKNOWN = "unknown"
NO_VALUE = frozenset({"", "nan", "na", "n/a", "<na>", "none", "null"})  # what texts say, in any case, of nothing

SPLIT = "split"
TRAIN = "train"
VALIDATION = "validation"
GAP = "gap"

N_TRANSCRIPTS = "n_transcripts"
NUCLEUS_FRACTION = "nucleus_fraction"
AREA = "area"

GENE_IDS = "gene_ids"

SPATIAL = "spatial"
OWN_FRAME = "spatial_own_frame"
COLOCALIZATION = "colocalization"
COLOCALIZATION_ENRICHMENT = "colocalization_enrichment"
CONNECTIVITIES = "spatial_connectivities"
DISTANCES = "spatial_distances"
NEIGHBORS = "spatial_neighbors"

SPAF = "spaf"

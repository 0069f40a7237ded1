"""What a contrastive run is told."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

from spaf_data import Distances
from spaf_model import SpatialFormerConfig
from spaf_train._checks import require, require_at_least
from spaf_train._options import from_table
from spaf_train.objectives import ColocalizationConfig, MaskedGenesConfig
from spaf_train.pretraining.config import read_table, shipped_in
from spaf_train.pretraining.gene_table import GeneTableConfig, with_gene_table
from spaf_train.pretraining.vocabulary import VocabularyConfig
from spaf_train.recipes.neighbours import NeighboursConfig
from spaf_train.recipes.patches import PatchConfig
from spaf_train.recipes.towers import TowersConfig
from spaf_train.trainer.optim import OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastRunConfig:
    """How long a run is, and how often it looks at the validation split."""

    steps: int = 1000  # optimizer steps
    log_every: int = 20  # steps between two training rows of metrics.csv
    validate_every: int = 200  # steps between two validations
    validation_steps: int = 20  # steps' worth of cells of the validation split that are looked at, the same each time
    checkpoint_every: int = 200  # steps between two checkpoints
    keep: int = 2  # checkpoints that are kept
    threads: int = 1  # of torch on the CPU; equal results need an equal number

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "validate_every", "validation_steps", "checkpoint_every", "keep", "threads"):
            require_at_least(name, getattr(self, name), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Everything that a contrastive run is told, apart from where its data is."""

    seed: int = 0  # of the weights, the patches, the masks and dropout
    model: SpatialFormerConfig = dataclasses.field(default_factory=lambda: SpatialFormerConfig(pair_input="separate"))
    vocabulary: VocabularyConfig = VocabularyConfig()
    gene_embeddings: GeneTableConfig = GeneTableConfig()
    patches: PatchConfig = PatchConfig()
    neighbours: NeighboursConfig = NeighboursConfig()
    towers: TowersConfig = TowersConfig()
    masked_genes: MaskedGenesConfig = MaskedGenesConfig()
    colocalization: ColocalizationConfig = ColocalizationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: ContrastRunConfig = ContrastRunConfig()

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed must be at least 0, not {self.seed}.")
        require(self.model.pair_input == "separate", "model.pair_input must be separate: each cell is read alone.")
        object.__setattr__(self, "model", with_gene_table(self.model, self.gene_embeddings))

    def following(self, corpus: Distances) -> ContrastConfig:
        """Return the same with all distances given, those of a corpus where there were none.

        Raises
        ------
        InputError
            If what is given contradicts itself or the graph of the corpus.
        """
        neighbours = self.neighbours.following(corpus)
        patches = self.patches.following(neighbours.distances())
        return dataclasses.replace(self, neighbours=neighbours, patches=patches)


def contrast_presets() -> list[str]:
    """Return the names of the contrastive configurations that the package ships."""
    return shipped_in(resources.files("spaf_train.recipes"))


def read_contrast_config(source: str | Path) -> ContrastConfig:
    """Read the configuration of a contrastive run: a TOML file, or the name of one that the package ships.

    Raises
    ------
    InputError
        If there is no such file, it is not TOML, or an option is unknown or out of range.
    """
    return from_table(ContrastConfig, read_table(source, resources.files("spaf_train.recipes")))

"""What an input is, and how inputs are batched."""

from __future__ import annotations

import dataclasses
from typing import Any

from spaf_data import Distances
from spaf_train._checks import require, require_at_least, require_fraction
from spaf_train._options import Tables, check_types
from spaf_train.stream.distances import distances_of
from spaf_train.stream.samplers.base import SAMPLERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What an input is, which pairs are drawn, and how they are batched."""

    input: str = "pairs"  # which of `SAMPLERS`: pairs, two cells an input; cells, one; patches, tissue at many sites
    positives: float = 1.0  # pairs: share of the positive pairs of a block that an epoch visits
    hard_negatives: int = 1  # pairs: drawn for each positive pair, from its block
    easy_negatives: int = 1  # pairs: drawn for each positive pair, from the same slide
    radius: float | None = None  # um, largest distance of neighbours; None: that of the corpus, as for the next three
    hard_min: float | None = None  # um, distance of a hard negative
    hard_max: float | None = None  # um
    easy_min: float | None = None  # um, least distance of an easy negative
    window_blocks: int = 8  # blocks whose inputs are shuffled together
    grouping: int = 2048  # shuffled inputs among which those of similar length share a batch
    token_budget: int = 4096  # largest number of tokens that pass the network at once, padding included
    batches_per_step: int = 1  # batches of a step over all processes; more than one accumulates gradients
    thinning: float = 0.0  # largest share of transcripts removed at random from a cell, anew each time it is used
    panel_min: float = 1.0  # each batch shows a share of the genes, drawn between this and 1, to all of its cells
    context_dropout: float = 0.0  # chance that species, assay, tissue or condition of a cell is given as unknown
    tables: Tables = Tables()  # options of each sampler, [sampling.NAME]

    def __post_init__(self) -> None:
        check_types(self)
        require(self.input in SAMPLERS, f"input must be one of {', '.join(SAMPLERS)}, not {self.input!r}.")
        require(0.0 < self.positives <= 1.0, f"positives must be above 0 and at most 1, not {self.positives}.")
        require_at_least("hard_negatives", self.hard_negatives, 0)
        require_at_least("easy_negatives", self.easy_negatives, 0)
        require(self.radius is None or self.radius > 0.0, f"radius must be above 0 um, not {self.radius}.")
        for name in ("hard_min", "hard_max", "easy_min"):
            if getattr(self, name) is not None:
                require_at_least(name, getattr(self, name), 0.0)
        if self.hard_min is not None:
            hard_max = Distances().hard_max if self.hard_max is None else self.hard_max
            require(
                hard_max > self.hard_min,
                f"hard_max must be above hard_min ({self.hard_min} um), not {hard_max}; give both of them.",
            )
        for name in ("window_blocks", "grouping", "token_budget", "batches_per_step"):
            require_at_least(name, getattr(self, name), 1)
        require(0.0 <= self.thinning < 1.0, f"thinning must be at least 0 and below 1, not {self.thinning}.")
        require(0.0 < self.panel_min <= 1.0, f"panel_min must be above 0 and at most 1, not {self.panel_min}.")
        require_fraction("context_dropout", self.context_dropout)
        require(
            self.input != "pairs" or self.hard_negatives + self.easy_negatives > 0,
            "hard_negatives and easy_negatives must not both be 0, since pairs need negatives.",
        )

    @staticmethod
    def known_tables() -> dict[str, type]:
        """Return the class of the table of each sampler that has options of its own."""
        return {name: sampler.Config for name, sampler in SAMPLERS.items() if dataclasses.fields(sampler.Config)}

    def table(self, name: str) -> Any:
        """Return the options of a sampler."""
        given = self.tables.get(name)
        return SAMPLERS[name].Config() if given is None else given

    def distances(self, corpus: Distances | None = None) -> Distances:
        """Return the distances of the pairs: those given, and else those of the corpus (the usual ones without it).

        Raises
        ------
        InputError
            If what is given contradicts itself or the graph of the corpus.
        """
        return distances_of(
            "sampling", corpus, radius=self.radius, hard_min=self.hard_min, hard_max=self.hard_max,
            easy_min=self.easy_min,
        )  # fmt: skip

    def following(self, corpus: Distances) -> SamplingConfig:
        """Return the same with all distances given, those of the corpus where there were none."""
        found = self.distances(corpus)
        return dataclasses.replace(
            self, radius=found.positive, hard_min=found.hard_min, hard_max=found.hard_max, easy_min=found.easy_min
        )

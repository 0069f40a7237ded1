"""What a fit read, chose and reached; and the card that says so."""

from __future__ import annotations

import dataclasses
from typing import Any

from spaf_model.tissue.config import SMALL, TissueConfig


@dataclasses.dataclass(frozen=True)
class SlideAccount:
    """One slide of a fit."""

    name: str
    n_cells: int  # with counts
    n_genes: int  # of the model, with counts here
    neighbours: str  # who they are
    n_with_neighbour: int
    mean_neighbours: float  # of the cells that have any


@dataclasses.dataclass(frozen=True)
class Account:
    """What a fit read, chose and reached."""

    n_cells: int  # handed over
    n_empty: int  # without counts, left out
    n_genes: int
    slides: tuple[SlideAccount, ...]
    fallback: str  # why less was fitted than was asked for; "" where all was
    loss: float | None  # of the network at the end, nats; None without one
    chance: float | None  # of guessing among the same candidates, nats
    seconds: float

    @property
    def n_with_neighbour(self) -> int:
        """Cells that have a neighbour."""
        return sum(slide.n_with_neighbour for slide in self.slides)

    @property
    def not_learnt(self) -> str:
        """A sentence where the network has learnt nothing; "" where it has, or there is none."""
        if self.loss is None or self.chance is None or self.loss < 0.98 * self.chance:
            return ""
        return (
            f"The network does not tell neighbours from other cells (loss {self.loss:.2f} nats, guessing "
            f"{self.chance:.2f}): check that the coordinates belong to these cells, give more cells or a larger "
            "radius, or use the preset neighbours."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self) | {"not_learnt": self.not_learnt}


def card_of(config: TissueConfig, account: Account) -> str:
    """Return the card of a model: data, recipe and why, what it is for, limits."""
    slides = account.slides
    lines = [
        "# Own-tissue model",
        "",
        *([f"**{account.not_learnt}**", ""] if account.not_learnt else []),
        *([f"**{account.fallback}**", ""] if account.fallback else []),
        "## Data",
        "",
        f"- {sum(slide.n_cells for slide in slides):,} cells of {len(slides)} slide{'s' * (len(slides) != 1)}, "
        f"{account.n_genes:,} genes"
        + (f"; {account.n_empty:,} cells without counts were left out" if account.n_empty else ""),
        *(
            f"- {slide.name or 'The slide'}: {slide.n_cells:,} cells, {slide.n_genes:,} genes; neighbours: "
            f"{slide.neighbours}; {slide.n_with_neighbour:,} cells have some, {slide.mean_neighbours:.1f} on average"
            for slide in slides
        ),
        "- Licence: that of the data; fitting adds no terms of its own.",
        "",
        "## Recipe",
        "",
        *_recipe(config, account),
        "",
        "## What it is for",
        "",
        "For the tissue that it was fitted on: cells that lie beside each other in it come out alike (place), and so "
        "do cells that express alike (identity). A slide is standardised by its own cells, so other slides of the same "
        "tissue and panel can be embedded too; genes that they lack count as missing.",
        "",
        "## Limits",
        "",
        "- The embedding of a cell depends on its counts, and on its slide through the standardisation; not on its "
        "coordinates.",
        "- Cells that were fitted on are no test of it: judge it on a held-out strip or slide, beside principal "
        "components of that part.",
        "- It was never shown other tissues, panels or instruments. On spots of a patient that was not seen, principal "
        "components of that patient's Pearson residuals were better than a model of other patients.",
        "- Labels: scale the parts when fitting a classifier; on small sets twice the weight of identity did best.",
    ]
    return "\n".join(lines) + "\n"


def _recipe(config: TissueConfig, account: Account) -> list[str]:
    lines = [f"- Preset `{config.preset}`, seed {config.seed}"]
    n = account.n_with_neighbour
    if "closed" not in config.scales:
        return [*lines, "- Place: none", f"- Identity: {config.n_identity} principal components of z-scores"]
    closed = "closed form (what whitened components of Pearson residuals share with the mean of the neighbours)"
    if config.network is None:
        why = f"{n:,} cells with a neighbour are below {SMALL:,}" if n < SMALL else "the closed form was asked for"
        lines.append(f"- Place: the {closed}; no network, because {why}")
    else:
        network = config.network
        lines.append(
            f"- Place: the {closed}, and {config.network_weight:g} times a network (widths "
            f"{', '.join(map(str, network.widths))}; {network.steps} steps, by {n:,} cells with a neighbour) trained "
            f"by contrast of neighbours on random panels; loss {account.loss:.3f} nats at the end, guessing "
            f"{account.chance:.3f}"
        )
    lines.append(f"- Identity: {config.n_identity} principal components of z-scored log counts")
    lines.append(f"- Joint: place and {config.identity_weight:g} times identity, each of mean squared norm 1")
    return lines

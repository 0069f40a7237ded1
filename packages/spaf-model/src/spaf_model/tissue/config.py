"""The recipe of an own-tissue model: what is chosen by the size of the data, and the numbers that are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from spaf_model.errors import InputError

Preset = Literal["tissue", "neighbours"]

SMALL = 1_500  # cells with a neighbour below which a network loses against the closed form
LARGE = 8_000  # from here on a wider network, and more steps
LEAST_NEIGHBOURED = 50  # cells with a neighbour below which there is no covariance worth the name

IDENTITY_WEIGHT, IDENTITY_WEIGHT_SMALL = 0.5, 1.0  # of the identity beside the place; few cells make a noisy place


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network and its training."""

    widths: tuple[int, ...] = (256, 128)  # of the hidden layers
    steps: int = 400
    batch: int = 256  # cells a step, each with one of its neighbours
    dropout: float = 0.3  # behind each hidden layer; .1 at the input
    panel: tuple[float, float] = (0.5, 1.0)  # bounds of the share of genes that a view of a cell keeps
    temperature: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    local: float = 0.5  # share of a batch drawn from few patches: negatives from nearby
    patches: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))
        object.__setattr__(self, "panel", tuple(float(share) for share in self.panel))
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"network.widths must be at least one width, each at least 1, not {self.widths}.")
        for name in ("steps", "batch", "patches"):
            if getattr(self, name) < 1:
                raise InputError(f"network.{name} must be at least 1, not {getattr(self, name)}.")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"network.dropout must be from 0 to below 1, not {self.dropout}.")
        if len(self.panel) != 2 or not 0.0 < self.panel[0] <= self.panel[1] <= 1.0:
            raise InputError(f"network.panel must be two shares above 0, the smaller first, not {self.panel}.")
        if not 0.0 <= self.local < 1.0:
            raise InputError(f"network.local must be from 0 to below 1, not {self.local}.")
        for name in ("temperature", "learning_rate"):
            if not getattr(self, name) > 0.0:
                raise InputError(f"network.{name} must be above 0, not {getattr(self, name)}.")

    @classmethod
    def by_size(cls, n_cells: int) -> NetworkConfig | None:
        """Return the network for so many training cells with a neighbour; None where they are too few for one."""
        if n_cells < SMALL:
            return None
        return cls() if n_cells < LARGE else cls(widths=(512, 256), steps=800)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TissueConfig:
    """What an own-tissue model was asked for and, once it is fitted, what was chosen and measured on the way."""

    preset: Preset = "tissue"  # "neighbours": the closed form alone
    seed: int = 0  # of the network, its batches, and components of more than 2,000 genes
    radius: float | None = None  # of neighbours, in the unit of the coordinates; None: by the places of each slide
    max_neighbours: int = 30  # nearest ones that count within the radius
    n_components: int = 100  # principal components that the closed form looks at
    ridge: float = 0.5  # of their whitening, in mean variances
    n_place: int = 30  # most dimensions of the closed form, and of the network
    n_identity: int = 50  # principal components of the z-scores
    network_weight: float = 0.75  # of the network beside the closed form
    identity_weight: float | None = None  # of the identity beside the place; None: by the number of cells
    network: NetworkConfig | None = None  # None: by the number of cells; of a fitted model: none
    size_by_slide: bool = False  # bring each part to one size on the slide that is embedded, not by those of the fit
    n_slides: int = 0  # that the model was fitted on; 0 before
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)  # root mean squared norm of each part there

    def __post_init__(self) -> None:
        if self.preset not in get_args(Preset):
            raise InputError(f"preset must be one of {', '.join(get_args(Preset))}, not {self.preset!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed must be a whole number of at least 0, not {self.seed!r}.")
        if self.radius is not None and not 0.0 < self.radius < float("inf"):
            raise InputError(f"radius must be above 0, not {self.radius:g}.")
        for name, least in (
            ("max_neighbours", 1), ("n_components", 1), ("n_place", 1), ("n_identity", 1), ("n_slides", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}.")
            if value < least:
                raise InputError(f"{name} must be at least {least}, not {value}.")
        if not isinstance(self.scales, Mapping) or not all(_is_size(size) for size in self.scales.values()):
            raise InputError(f"scales must give each part a size above 0, not {self.scales!r}.")
        for name in ("ridge", "network_weight", "identity_weight"):
            value = getattr(self, name)
            if value is None and name != "identity_weight":
                raise InputError(f"{name} must be at least 0, not None.")
            if value is not None and not 0.0 <= value < float("inf"):
                raise InputError(f"{name} must be at least 0, not {value:g}.")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``config.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> TissueConfig:
        """Return the configuration that `as_dict` wrote.

        Raises
        ------
        InputError
            If an option is unknown or out of range.
        """
        values = dict(table)
        try:
            if values.get("network") is not None:
                values["network"] = NetworkConfig(**values["network"])
            return cls(**values)
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the configuration of a tissue model cannot be read: {error}.") from error


def _is_size(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0.0 < value < float("inf")

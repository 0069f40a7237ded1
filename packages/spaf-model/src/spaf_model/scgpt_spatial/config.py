"""Configuration of a scGPT-spatial model: every number that its tokeniser and its network need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from spaf_model.configuration import PlainConfig, checked_number
from spaf_model.errors import InputError

NormPlacement = Literal["pre", "post"]
ValueStyle = Literal["bins", "rates"]
Ties = Literal["middle", "random"]
Cut = Literal["expression", "random"]
Output = Literal["bins", "counts"]
Routing = Literal["token", "cell"]
NeighbourWeights = Literal["gaussian", "uniform"]
NeighbourMixing = Literal["none", "given", "learnt"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "norm": get_args(NormPlacement),
    "value_style": get_args(ValueStyle),
    "ties": get_args(Ties),
    "cut": get_args(Cut),
    "output": get_args(Output),
    "routing": get_args(Routing),
    "neighbour_weights": get_args(NeighbourWeights),
    "neighbour_mix": get_args(NeighbourMixing),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScGPTSpatialConfig(PlainConfig):
    """Sizes and switches of a scGPT-spatial model.

    The defaults are for new models. They differ from the published configuration (`published`) in what is cheap to do
    better: a residual stream that is normalised on the way into each branch, and left alone; one expert instead of
    four; outputs that are counts, with a likelihood, instead of ranks within a cell; hidden genes whose attention is
    projected as that of known ones; and no dropout on attention weights, which would rule out the fused kernels of a
    CPU. None of these choices was compared in training.

    Raises
    ------
    InputError
        If a value is out of range or two values do not fit together; the sentence names the option.

    Examples
    --------
    >>> from spaf_model.scgpt_spatial import ScGPTSpatialConfig
    >>> config = ScGPTSpatialConfig(width=128, n_layers=4, n_heads=4)
    >>> config.head_dim
    32
    """

    n_tokens: int | None = None  # rows of the gene table; None: by the vocabulary (`ScGPTSpatial.fitting_config`)
    n_technologies: int | None = None  # rows of the technology table, 0 for none; None: the assays of the vocabulary
    width: int = 512  # D, values a token
    n_layers: int = 12
    n_heads: int = 8  # attention heads; must divide width
    mlp_width: int | None = None  # hidden width of the MLP behind attention; None: width, as published
    norm: NormPlacement = "pre"  # LayerNorm before each branch, or after each residual sum
    asked_projection: bool = True  # whether attention of genes asked for is projected, as that of known ones is
    n_experts: int = 1  # of the decoder of tokens; 1: a plain one without a router
    n_active: int = 2  # experts that a token is computed by, where there are several
    routing: Routing = "token"  # what is sent to experts: each token by its own state, or each cell by its state
    balance_rate: float = 1e-3  # how far a step moves the bias that balances the experts; 0: there is no such bias
    generative: bool = True  # whether genes may be asked for: there is a vector that says so
    neighbourhood_decoder: bool = True  # a second decoder of cells, for states of their neighbours
    discriminator: bool = False  # a head that tells the technology from the state of a cell, for training against it
    output: Output = "counts"  # negative binomial counts, or a bin of the cell
    value_style: ValueStyle = "bins"  # what a token says of its count (`spaf_model.scgpt_spatial.values`)
    n_bins: int = 51  # with 0, which stands for a count of zero
    ties: Ties = "middle"  # bin of genes of equal value: the middle one of theirs, or any by `token_seed`
    max_length: int | None = None  # most tokens of a cell, CLS included; None: all
    cut: Cut = "expression"  # which genes stay of a longer cell: those of highest value, or any by `token_seed`
    token_seed: int = 0  # of random ties and cuts
    n_neighbours: int = 30  # cells that a neighbourhood is made of, of the same slide
    neighbour_weights: NeighbourWeights = "gaussian"  # of their states in it, by distance
    neighbour_width: float = 1.3  # standard deviation of the Gaussian, in mean distances of the six nearest cells
    neighbour_mix: NeighbourMixing = "none"  # counts seen in neighbours, beside the decoder: not, or at what width
    niche_gate: float = 0.0  # weight of the neighbourhood in an expectation of a cell that joins the two
    routing_record: Mapping[str, Any] | None = None  # what experts are used for, where measured (`RoutingReport`)
    dropout: float = 0.1  # behind the values, attention and both maps of an MLP
    attention_dropout: float = 0.0  # on attention weights; above 0, CPU training builds them whole

    def __post_init__(self) -> None:
        for name in ("width", "n_layers", "n_heads", "n_experts", "n_active", "n_neighbours"):
            _check_whole(name, getattr(self, name), least=1)
        _check_whole("n_bins", self.n_bins, least=3)
        _check_whole("token_seed", self.token_seed, least=0)
        for name, least in (("n_tokens", 1), ("n_technologies", 0), ("mlp_width", 1), ("max_length", 2)):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), least=least)
        for name in ("asked_projection", "generative", "neighbourhood_decoder", "discriminator"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, not {getattr(self, name)!r}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}.")
        if self.width % self.n_heads:
            raise InputError(f"n_heads must divide width: {self.n_heads} does not divide {self.width}.")
        if self.n_experts > 1 and self.n_active > self.n_experts:
            raise InputError(f"n_active must be at most n_experts, {self.n_experts}, not {self.n_active}.")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= checked_number(name, getattr(self, name)) < 1.0:
                raise InputError(f"{name} must be at least 0 and below 1, not {getattr(self, name)!r}.")
        if not 0.0 <= checked_number("balance_rate", self.balance_rate) < math.inf:
            raise InputError(f"balance_rate must be at least 0, not {self.balance_rate!r}.")
        if not 0.0 < checked_number("neighbour_width", self.neighbour_width) < math.inf:
            raise InputError(f"neighbour_width must be above 0, not {self.neighbour_width!r}.")
        if not 0.0 <= checked_number("niche_gate", self.niche_gate) <= 1.0:
            raise InputError(f"niche_gate must be from 0 to 1, not {self.niche_gate!r}.")
        if self.neighbour_mix != "none" and (self.output != "counts" or not self.neighbourhood_decoder):
            raise InputError(
                f"neighbour_mix = {self.neighbour_mix} joins counts with a decoder of neighbourhoods: it needs "
                "output = counts and neighbourhood_decoder = true, or neighbour_mix = none."
            )
        if self.routing_record is not None and not isinstance(self.routing_record, Mapping):
            raise InputError(f"routing_record must be a table or None, not {self.routing_record!r}.")
        if self.mlp_width is None:
            object.__setattr__(self, "mlp_width", self.width)

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.width // self.n_heads

    @property
    def decoder_width(self) -> int:
        """Values that a decoder reads: a state and, where there are technologies, that of the technology."""
        return self.width * (2 if self.n_technologies else 1)

    @classmethod
    def published(cls) -> ScGPTSpatialConfig:
        """Return the configuration of the published model, V1: 189 tensors, 55,012,360 parameters."""
        return cls(
            n_tokens=60_697,
            n_technologies=4,
            width=512,
            n_layers=12,
            n_heads=8,
            norm="post",
            asked_projection=False,
            n_experts=4,
            n_active=2,
            balance_rate=0.0,
            output="bins",
            max_length=1200,
            n_neighbours=6,
            neighbour_weights="uniform",
            dropout=0.2,
            attention_dropout=0.2,
        )


def _check_whole(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}.")

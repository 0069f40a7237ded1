"""Configuration of a SpatialFormer: every number that its network needs."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from spaf_model.configuration import PlainConfig, checked_number
from spaf_model.errors import InputError
from spaf_model.spatialformer.values import GeneValueKind

NormPlacement = Literal["pre", "post"]
ColocalizationHead = Literal["symmetric", "bilinear", "additive"]
PairInput = Literal["joint", "separate"]
PairComparison = Literal["projection", "cosine"]
PublishedVersion = Literal["v1", "v2"]

ATTENTION_LAYOUT = "[q|k|v][head][dim]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpatialFormerConfig(PlainConfig):
    """Sizes and switches of a SpatialFormer.

    The defaults are for new models. They differ from the published configuration (`published`) in five places: heads of
    64 dimensions, which fill the vector units that heads of 8 leave idle; layers normalised on the way in, which train
    without a long warm-up (Xiong et al. 2020, https://arxiv.org/abs/2002.04745); no dropout inside attention, which
    would rule out the fused kernels; no second gene table, which in short runs speeds learning whatever it starts from
    and was not compared in long ones; and a co-localisation head that is symmetric, as its target is.

    ``benchmarks/architecture.py`` trains such choices alike on a small section: after 200 steps, two seeds each, losses
    of masked genes lay within the spread of seeds for all sizes of heads and both places of norms; heads of 8 trained
    three quarters as many tokens a second as heads of 32. The bilinear head learnt gene pairs faster (AUROC .70, not
    .62) and masked genes more slowly.

    Raises
    ------
    InputError
        If a value is out of range or two values do not fit together; the sentence names the option.

    Examples
    --------
    >>> from spaf_model import SpatialFormerConfig
    >>> config = SpatialFormerConfig(width=128, n_layers=4, n_heads=4)
    >>> config.head_dim
    32
    """

    n_tokens: int | None = None  # size of the vocabulary; None: taken from the vocabulary the model is made with
    width: int = 512  # D, values a token
    n_layers: int = 10  # one layer = one convolution block, then one attention block
    n_heads: int = 8  # attention heads; must divide width
    mlp_expansion: int = 4  # width of the gated MLP before the gate, in units of D
    conv_kernel: int = 17  # taps of the depthwise convolution, odd
    norm: NormPlacement = "pre"  # LayerNorm before each branch, or after each residual sum
    attention_scale: float | None = None  # factor of q.k; None: head_dim ** -0.5 (the number is stored)
    attention_layout: str = ATTENTION_LAYOUT  # order of the rows of qkv; the only one there is, recorded for importers
    gene_spatial_embedding: bool = False  # a second table over token ids, for vectors pre-trained on transcript graphs
    train_type_embedding: bool = True  # False: the table of token types keeps its initial values
    pair_input: PairInput = "joint"  # joint: two cells are one sequence; separate: each is read alone, then compared
    pair_rank: int = 64  # dimensions in which the head of separate cells compares them
    pair_comparison: PairComparison = "projection"  # of separate cells; cosine: of their states, centred by slide
    contrast_rank: int = 0  # dimensions of a projection for contrast alone; 0: contrast acts on that of the pair head
    gene_values: GeneValueKind = "none"  # values beside ranks: zscore or pearson, see `spaf_model.spatialformer.values`
    linear_path: int = 0  # principal components of all gene values, added to the state of a cell; 0: none
    decoder_width: int = 0  # hidden units of the decoder of a cell's own values from its state; 0: no decoder
    colocalization_head: ColocalizationHead = "symmetric"  # see `spaf_model.spatialformer.heads`
    colocalization_learnt: bool = True  # False: training left the head worth nothing, and the model does not offer it
    colocalization_rank: int = 128  # dimensions of the projections of the symmetric and bilinear heads
    embedding_dropout: float = 0.1  # after the sum of the tables
    conv_dropout: float = 0.1  # after the activation of the convolution
    attention_dropout: float = 0.0  # on attention weights; above 0, CPU training builds them whole
    mlp_dropout: float = 0.1  # after the gate
    drop_path: float = 0.1  # chance that a cell skips a branch in training
    batch_norm_momentum: float = 0.05  # weight of the newest step in the running statistics
    batch_norm_eps: float = 1e-5  # added to the variance
    max_genes: int | None = None  # highest-ranked genes kept a cell; None: all

    def __post_init__(self) -> None:
        for name in (
            "width",
            "n_layers",
            "n_heads",
            "mlp_expansion",
            "conv_kernel",
            "pair_rank",
            "colocalization_rank",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")
        for name in ("n_tokens", "max_genes"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a whole number of at least 1 or None, not {value!r}.")
        for name in ("gene_spatial_embedding", "train_type_embedding"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, not {getattr(self, name)!r}.")
        if self.width % self.n_heads:
            raise InputError(f"n_heads must divide width: {self.n_heads} does not divide {self.width}.")
        if self.mlp_expansion % 2:
            raise InputError(f"mlp_expansion must be even, since the gate halves it, not {self.mlp_expansion}.")
        if self.conv_kernel % 2 == 0:
            raise InputError(f"conv_kernel must be odd, not {self.conv_kernel}.")
        _check_choice("norm", self.norm, get_args(NormPlacement))
        _check_choice("pair_input", self.pair_input, get_args(PairInput))
        _check_choice("pair_comparison", self.pair_comparison, get_args(PairComparison))
        _check_choice("gene_values", self.gene_values, get_args(GeneValueKind))
        self._check_values()
        _check_choice("colocalization_head", self.colocalization_head, get_args(ColocalizationHead))
        _check_choice("attention_layout", self.attention_layout, (ATTENTION_LAYOUT,))
        for name in ("embedding_dropout", "conv_dropout", "attention_dropout", "mlp_dropout", "drop_path"):
            value = checked_number(name, getattr(self, name))
            if not 0.0 <= value < 1.0:
                raise InputError(f"{name} must be at least 0 and below 1, not {value!r}.")
        if not 0.0 < checked_number("batch_norm_momentum", self.batch_norm_momentum) <= 1.0:
            raise InputError(f"batch_norm_momentum must be above 0 and at most 1, not {self.batch_norm_momentum!r}.")
        if not checked_number("batch_norm_eps", self.batch_norm_eps) > 0.0:
            raise InputError(f"batch_norm_eps must be above 0, not {self.batch_norm_eps!r}.")
        if self.attention_scale is None:
            object.__setattr__(self, "attention_scale", self.head_dim**-0.5)
        elif not checked_number("attention_scale", self.attention_scale) > 0.0:
            raise InputError(f"attention_scale must be above 0, not {self.attention_scale!r}.")

    def _check_values(self) -> None:
        """Refuse what needs values beside the ranks without them, and what needs single cells where two are read."""
        for name in ("contrast_rank", "linear_path", "decoder_width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"{name} must be a whole number of at least 0, not {value!r}.")
            if value and self.pair_input != "separate":
                raise InputError(f"{name} needs pair_input = separate: it is of a cell that is read alone.")
            if value and name != "contrast_rank" and self.gene_values == "none":
                raise InputError(f"{name} needs gene_values: {', '.join(get_args(GeneValueKind)[1:])}.")
        if self.linear_path > self.width:
            raise InputError(f"linear_path must be at most width ({self.width}), not {self.linear_path}.")
        if self.pair_comparison == "cosine" and self.pair_input != "separate":
            raise InputError("pair_comparison = cosine needs pair_input = separate: it is of two cells read apart.")

    @property
    def reads_whole_slides(self) -> bool:
        """Whether what is said of a cell depends on the other cells of its slide."""
        return self.gene_values != "none" or self.pair_comparison == "cosine"

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.width // self.n_heads

    @classmethod
    def published(cls, version: PublishedVersion = "v2") -> SpatialFormerConfig:
        """Return the configuration of the published SpatialFormer.

        Parameters
        ----------
        version
            ``"v2"`` (6,065 tokens, low-rank co-localisation head) or ``"v1"`` (1,950 tokens, additive head).
        """
        _check_choice("version", version, get_args(PublishedVersion))
        return cls(
            n_tokens=6065 if version == "v2" else 1950,
            width=512,
            n_layers=10,
            n_heads=64,
            mlp_expansion=4,
            conv_kernel=17,
            norm="post",
            gene_spatial_embedding=True,
            train_type_embedding=False,
            colocalization_head="bilinear" if version == "v2" else "additive",
            colocalization_rank=128,
            attention_dropout=0.1,
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")

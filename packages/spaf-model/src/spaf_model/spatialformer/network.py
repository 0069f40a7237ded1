"""The network: embeddings, layers and heads. Shapes are named as in `layers`; V is the size of the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from spaf_model.attention_bias import AlibiBias
from spaf_model.errors import InputError
from spaf_model.family import Network
from spaf_model.initial_weights import initialise
from spaf_model.kernels import KernelName, select_kernel
from spaf_model.spatialformer.heads import (
    CosinePairs,
    SeparatePairs,
    colocalization_head,
    contrast_projection,
    decoder,
    linear_path,
    pair_head,
)
from spaf_model.spatialformer.layers import (
    ConvolutionMixer,
    Layer,
    SelfAttention,
    SequenceContext,
    TokenEmbedding,
)
from spaf_model.spatialformer.tokeniser import N_PREFIX, TokenBatch

if TYPE_CHECKING:
    from spaf_model.options import EmbeddingSettings
    from spaf_model.spatialformer.config import SpatialFormerConfig

# The linear maps of attention, and of the MLPs behind attention and convolution.
_ADAPTED = re.compile(r".*\.(attention\.mixer\.(qkv|project)|mlp\.(expand|project))")


class SpatialFormerNetwork(Network[TokenBatch]):
    """Encoder of ranked gene tokens with heads for masked genes, cell pairs and co-localised genes.

    Nothing is computed unless asked for: `encode` gives the hidden states, and each head is a method on them.

    Parameters
    ----------
    config
        Sizes and switches; `config.n_tokens` must be set.
    """

    def __init__(self, config: SpatialFormerConfig) -> None:
        super().__init__()
        assert config.n_tokens is not None
        self.config = config
        self.embedding = TokenEmbedding(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.masked_gene_head = nn.Linear(config.width, config.n_tokens)
        self.pair_head = pair_head(config)
        self.colocalization_head = colocalization_head(config)
        self.linear_path = linear_path(config)
        self.contrast_projection = contrast_projection(config)
        self.decoder = decoder(config)
        self.apply(initialise)
        if self.linear_path is not None and not self.linear_path.loadings.is_meta:
            nn.init.orthogonal_(self.linear_path.project.weight)

    @property
    def width(self) -> int:
        """Dimensions of the state of a cell."""
        return self.config.width

    def encode(self, batch: TokenBatch, *, kernel: KernelName | None = None) -> torch.Tensor:
        """Return hidden states x_BLD; those at padding mean nothing.

        Parameters
        ----------
        batch
            Sequences on the device of the network.
        kernel
            Name of an attention kernel to force; None lets `select_kernel` decide.
        """
        context = self.sequence_context(batch, kernel=kernel)
        x_BLD = self.embedding(batch.ids, batch.types, batch.values)
        for layer in self.layers:
            x_BLD = layer(x_BLD, context)
        return self.finish(x_BLD, batch)

    def finish(self, x_BLD: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Return the hidden states of what the last layer gives, of all positions or of CLS alone.

        At CLS, which heads and `pool` read the state of a cell from, the linear path joins in.
        """
        hidden_BLD: torch.Tensor = self.final_norm(x_BLD)
        if self.linear_path is None:
            return hidden_BLD
        state_BD = self._with_path(hidden_BLD[:, 0], batch)
        return torch.cat([state_BD.unsqueeze(1), hidden_BLD[:, 1:]], dim=1)

    def _with_path(self, hidden_BD: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        if self.linear_path is None:
            return hidden_BD
        if batch.profile is None:
            raise InputError("The model has a linear path over the values of all genes, and these cells have none.")
        state_BD: torch.Tensor = self.linear_path(hidden_BD, batch.profile)
        return state_BD

    def pool(self, hidden: torch.Tensor, batch: TokenBatch, method: str) -> torch.Tensor:
        """Return one state of each cell, (B, D), of hidden states.

        Parameters
        ----------
        hidden
            x_BLD of single cells; for ``"cls"`` that of CLS is enough.
        batch
            Their tokens.
        method
            ``"cls"``: the state at CLS. ``"gene"``: the mean of the states of genes and SEP.
        """
        if method == "cls":
            return hidden[:, 0]
        mask = batch.mask[:, N_PREFIX:].unsqueeze(-1)
        genes = hidden[:, N_PREFIX:].float().masked_fill(~mask, 0.0)
        return self._with_path(genes.sum(dim=1) / mask.sum(dim=1), batch)

    def embedder(self, method: str, settings: EmbeddingSettings) -> Callable[[TokenBatch], torch.Tensor]:
        """Return the way from a batch to one state a cell, with weights laid out for inference."""
        from spaf_model.spatialformer.inference import InferenceEncoder  # which is made of networks

        encoder = InferenceEncoder(self)

        def embed(batch: TokenBatch) -> torch.Tensor:
            hidden = encoder.encode(batch, cls_only=method == "cls", kernel=settings.kernel)
            return self.pool(hidden, batch, method)

        return embed

    def blocks(self) -> Sequence[Layer]:
        """Return the layers."""
        return cast("list[Layer]", list(self.layers))

    def compiled(self) -> Sequence[tuple[nn.Module, str]]:
        """Return what each block computes behind its mixer: residual sums, norms, dropout and the gated MLP.

        Attention and convolution are kernels of a library, and the statistics of the masked norm depend on the padding.
        """
        blocks = [block for layer in self.blocks() for block in (layer.convolution, layer.attention)]
        return [(block, "after_mixing") for block in blocks]

    def statistics(self) -> Sequence[nn.Module]:
        """Return the convolutions, whose batch norms would follow the adapters."""
        return [module for module in self.modules() if isinstance(module, ConvolutionMixer)]

    @property
    def adapted_layers(self) -> Sequence[str]:
        """Names of the linear maps of attention, and of the MLPs behind attention and convolution."""
        return [name for name, _ in self.named_modules() if _ADAPTED.fullmatch(name)]

    def operations(self, batch: TokenBatch) -> float:
        """Return the floating-point operations of `encode`, padding not counted.

        Counted are the matrices of the layers, and attention among the tokens of each sequence; norms and gates are
        left out.
        """
        weights = sum(parameter.numel() for parameter in self.layers.parameters() if parameter.ndim >= 2)
        # Scores and their products with the values are 2 L D each for a token.
        pairs_of_tokens = float(batch.lengths.sum(dim=1).square().sum())
        return 2.0 * weights * batch.n_tokens + 4.0 * self.config.width * self.config.n_layers * pairs_of_tokens

    @property
    def activation_width(self) -> int:
        """Values of a position in the MLP before its gate, the widest activation."""
        return self.config.mlp_expansion * self.config.width

    def attention_weights(self, batch: TokenBatch) -> Iterator[torch.Tensor]:
        """Yield the attention weights (B, H, L, L) of each layer, one layer at a time."""
        context = self.sequence_context(batch, kernel=None)
        x_BLD = self.embedding(batch.ids, batch.types, batch.values)
        for layer in self.blocks():
            x_BLD = layer.convolution(x_BLD, context)
            block = layer.attention
            mixer = cast("SelfAttention", block.mixer)
            yield mixer.weights(block.mixer_norm(x_BLD) if block.pre_norm else x_BLD, context)
            x_BLD = block(x_BLD, context)

    def masked_gene_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits over the vocabulary, (..., V), of hidden states (..., D)."""
        logits: torch.Tensor = self.masked_gene_head(hidden)
        return logits

    def pair_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 2) of pairs from hidden states x_BLD, read at CLS; class 1 means neighbours.

        Raises
        ------
        InputError
            If the model reads the cells of a pair apart (`pair_input`): `pair_logits_of_cells` compares those.
        """
        if isinstance(self.pair_head, SeparatePairs | CosinePairs):
            raise InputError(
                "This model reads the two cells of a pair apart (pair_input is separate), not as one input."
            )
        logits: torch.Tensor = self.pair_head(hidden[:, 0])
        return logits

    def pair_logits_of_cells(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 2) of pairs of cells that were read alone, from their states at CLS, (n, D) each.

        Where the model compares cosines (`pair_comparison`), the states are those less the mean of their slide.

        Raises
        ------
        InputError
            If the model reads the cells of a pair as one sequence (`pair_input`).
        """
        if not isinstance(self.pair_head, SeparatePairs | CosinePairs):
            raise InputError("This model reads the two cells of a pair as one input (pair_input is joint), not apart.")
        logits: torch.Tensor = self.pair_head(left, right)
        return logits

    def colocalization_logits(self, hidden: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Return logits (B, L, L) that two positions hold co-localised genes.

        They mean something between two genes of one cell only; 0 wherever the two positions are not of the same cell.
        """
        logits_BLL = self.colocalization_head(hidden)
        types_BL = batch.types
        same_cell_BLL = (types_BL.unsqueeze(-1) == types_BL.unsqueeze(-2)) & (types_BL > 0).unsqueeze(-1)
        return torch.where(same_cell_BLL, logits_BLL, torch.zeros_like(logits_BLL))

    def sequence_context(self, batch: TokenBatch, *, kernel: KernelName | None) -> SequenceContext:
        """Work out what all layers share in a pass over a batch."""
        device = batch.ids.device
        n_cells, length = batch.ids.shape
        mask: torch.Tensor | None = batch.mask
        assert mask is not None
        positions: torch.Tensor | None = None
        if bool(mask.all()):
            mask = None
        else:
            positions = mask.reshape(-1).nonzero().squeeze(1)
        choice = select_kernel(
            device,
            self.compute_dtype(device),
            self.config.head_dim,
            length,
            need_weights=False,
            bias=AlibiBias.kind,
            dropout=self.training and self.config.attention_dropout > 0,
            forced=kernel,
        )
        bias = AlibiBias(self.config.n_heads, length, mask, device=device)
        return SequenceContext(mask=mask, positions=positions, shape=(n_cells, length), bias=bias, kernel=choice)

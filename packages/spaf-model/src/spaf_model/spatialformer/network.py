"""The network: embeddings, layers and heads."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from spaf_model.config import SpatialFormerConfig
from spaf_model.errors import InputError
from spaf_model.kernels import AttentionBias, KernelName, select_kernel
from spaf_model.spatialformer.attention import SelfAttention
from spaf_model.spatialformer.blocks import Layer
from spaf_model.spatialformer.embeddings import TokenEmbedding
from spaf_model.spatialformer.heads import SeparatePairs, colocalization_head, pair_head
from spaf_model.spatialformer.sequences import SequenceContext
from spaf_model.token_batch import TokenBatch


class SpatialFormerNetwork(nn.Module):
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
        self.apply(_initialise)

    def encode(self, batch: TokenBatch, *, kernel: KernelName | None = None) -> torch.Tensor:
        """Return hidden states (B, L, D); those at padding mean nothing.

        Parameters
        ----------
        batch
            Sequences on the device of the network.
        kernel
            Name of an attention kernel to force; None lets `select_kernel` decide.
        """
        context = self.sequence_context(batch, kernel=kernel)
        x = self.embedding(batch.ids, batch.types)
        for layer in self.layers:
            x = layer(x, context)
        x = self.final_norm(x)
        assert isinstance(x, torch.Tensor)
        return x

    def attention_weights(self, batch: TokenBatch) -> Iterator[torch.Tensor]:
        """Yield the attention weights (B, H, L, L) of each layer, one layer at a time."""
        context = self.sequence_context(batch, kernel=None)
        x = self.embedding(batch.ids, batch.types)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x = layer.convolution(x, context)
            block = layer.attention
            assert isinstance(block.mixer, SelfAttention)
            yield block.mixer.weights(block.mixer_norm(x) if block.pre_norm else x, context)
            x = block(x, context)

    def masked_gene_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits over the vocabulary, (..., V), of hidden states (..., D)."""
        logits = self.masked_gene_head(hidden)
        assert isinstance(logits, torch.Tensor)
        return logits

    def pair_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 2) of pairs from hidden states (B, L, D), read at CLS; class 1 means neighbours.

        Raises
        ------
        InputError
            If the model reads the cells of a pair apart (`pair_input`): `pair_logits_of_cells` compares those.
        """
        if isinstance(self.pair_head, SeparatePairs):
            raise InputError(
                "This model reads the two cells of a pair apart (pair_input is separate), not as one input."
            )
        logits = self.pair_head(hidden[:, 0])
        assert isinstance(logits, torch.Tensor)
        return logits

    def pair_logits_of_cells(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 2) of pairs of cells that were read alone, from their states at CLS, (n, D) each.

        Raises
        ------
        InputError
            If the model reads the cells of a pair as one sequence (`pair_input`).
        """
        if not isinstance(self.pair_head, SeparatePairs):
            raise InputError("This model reads the two cells of a pair as one input (pair_input is joint), not apart.")
        logits = self.pair_head(left, right)
        assert isinstance(logits, torch.Tensor)
        return logits

    def colocalization_logits(self, hidden: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
        """Return logits (B, L, L) that two positions hold co-localised genes.

        They mean something between two genes of one cell only; 0 wherever the two positions are not of the same cell.
        """
        logits = self.colocalization_head(hidden)
        types = batch.types
        same_cell = (types.unsqueeze(-1) == types.unsqueeze(-2)) & (types > 0).unsqueeze(-1)
        return torch.where(same_cell, logits, torch.zeros_like(logits))

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
            dropout=self.training and self.config.attention_dropout > 0,
            forced=kernel,
        )
        bias = AttentionBias(self.config.n_heads, length, mask, device=device)
        return SequenceContext(mask=mask, positions=positions, shape=(n_cells, length), bias=bias, kernel=choice)

    def compute_dtype(self, device: torch.device) -> torch.dtype:
        """Return the dtype of matrix products on a device, autocast considered."""
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return self.embedding.tokens.weight.dtype


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        # The scale is lost in the LayerNorm that follows; a small one lets the tables learn at the pace of the rest.
        nn.init.normal_(module.weight, std=0.02)

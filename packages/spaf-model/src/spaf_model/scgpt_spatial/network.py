"""The network: embeddings, layers and decoders. Shapes are named as in `layers`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from spaf_model.errors import InputError
from spaf_model.family import Network
from spaf_model.initial_weights import initialise
from spaf_model.scgpt_spatial.batch import ValueBatch
from spaf_model.scgpt_spatial.decoders import CellDecoder, CountOutput, Discriminator
from spaf_model.scgpt_spatial.experts import TokensToDecode, token_decoder
from spaf_model.scgpt_spatial.layers import GeneEmbedding, Layer, Streams, TechnologyEmbedding, ValueEmbedding
from spaf_model.scgpt_spatial.mixing import NeighbourMix, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from spaf_model.kernels import KernelName
    from spaf_model.options import EmbeddingSettings
    from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig

_ADAPTED = re.compile(r"layers\.\d+\.(attention\.(qkv|project)|expand|contract)")
ASKED = 1  # the row of the table of flags that says a gene is asked for


class ScGPTSpatialNetwork(Network[ValueBatch]):
    """Encoder of genes with values, and decoders of values from tokens, from cells and from their neighbourhoods.

    Nothing is computed unless asked for: `encode` gives the hidden states, and each head is a method on them. What
    heads give is a bin of the cell or, where the configuration says counts, what `count_output` makes a mean of.

    Parameters
    ----------
    config
        Sizes and switches; `config.n_tokens` and `config.n_technologies` must be set.
    """

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        assert config.n_tokens is not None
        assert config.n_technologies is not None
        self.config = config
        self.genes = GeneEmbedding(config)
        self.values = ValueEmbedding(config)
        self.flags = nn.Embedding(2, config.width) if config.generative else None
        self.technologies = TechnologyEmbedding(config) if config.n_technologies else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.token_decoder = token_decoder(config)
        self.cell_decoder = CellDecoder(config)
        self.neighbourhood_decoder = CellDecoder(config) if config.neighbourhood_decoder else None
        self.neighbour_mix = NeighbourMix(config) if config.neighbour_mix != "none" else None
        self.discriminator = Discriminator(config) if config.discriminator and config.n_technologies else None
        self.count_output = CountOutput(config) if config.output == "counts" else None
        self.apply(initialise)

    @property
    def width(self) -> int:
        """Dimensions of the state of a cell."""
        return self.config.width

    def encode(self, batch: ValueBatch, *, kernel: KernelName | None = None) -> torch.Tensor:
        """Return hidden states x_BLD, the known positions before those asked for; at padding they mean nothing.

        Parameters
        ----------
        batch
            Cells on the device of the network.
        kernel
            Name of an attention kernel to force; None lets `select_kernel` decide.
        """
        streams = self.streams(batch, kernel=kernel)
        x_BLD = self.embed_tokens(batch)
        for layer in self.layers:
            x_BLD = layer(x_BLD, streams)
        hidden_BLD: torch.Tensor = self.final_norm(x_BLD)
        return hidden_BLD

    def embed_tokens(self, batch: ValueBatch) -> torch.Tensor:
        """Return x_BLD that the layers start from.

        Raises
        ------
        InputError
            If genes are asked for and the model knows no such thing.
        """
        x_BLD: torch.Tensor = self.genes(batch.ids) + self.values(batch.values)
        if batch.asked_ids is None:
            return x_BLD
        if self.flags is None:
            raise InputError("This model cannot be asked for genes (generative is false).")
        return torch.cat([x_BLD, self.genes(batch.asked_ids) + self.flags.weight[ASKED]], dim=1)

    def streams(self, batch: ValueBatch, *, kernel: KernelName | None) -> Streams:
        """Work out how the positions of a batch see each other."""
        return Streams.of(
            batch,
            head_dim=self.config.head_dim,
            dtype=self.compute_dtype(batch.ids.device),
            dropout=self.training and self.config.attention_dropout > 0,
            forced=kernel,
        )

    def pool(self, hidden: torch.Tensor, batch: ValueBatch, method: str) -> torch.Tensor:
        """Return one state of each cell, (B, D), of hidden states.

        Parameters
        ----------
        hidden
            x_BLD; for ``"cls"`` that of CLS is enough.
        batch
            Their cells.
        method
            ``"cls"``: the state at CLS. ``"gene"``: the mean of the states of known genes. ``"value"``: their mean
            weighted by values.
        """
        if method == "cls":
            return hidden[:, 0]
        mask = batch.mask[:, 1:]
        weights = mask.float() if method == "gene" else batch.values[:, 1:].clamp(min=0.0) * mask
        genes = hidden[:, 1 : batch.n_known].float()
        summed = (genes.masked_fill(~mask.unsqueeze(-1), 0.0) * weights.unsqueeze(-1)).sum(dim=1)
        return summed / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def embedder(self, method: str, settings: EmbeddingSettings) -> Callable[[ValueBatch], torch.Tensor]:
        """Return the way from a batch to one state a cell, with weights laid out for inference."""
        from spaf_model.scgpt_spatial.inference import InferenceEncoder  # which is made of networks

        encoder = InferenceEncoder(self)

        def embed(batch: ValueBatch) -> torch.Tensor:
            hidden = encoder.encode(batch, cls_only=method == "cls", kernel=settings.kernel)
            return self.pool(hidden, batch, method)

        return embed

    def token_values(
        self, hidden: torch.Tensor, batch: ValueBatch, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the number of each of some tokens, (N,), from hidden states x_BLD.

        Parameters
        ----------
        hidden
            Of all positions.
        batch
            Their cells.
        positions
            Which are wanted, bool (B, L): numbers come in the order of the rows of the batch. None: all but padding.
        """
        if positions is None:
            positions = torch.cat([batch.mask, batch.asked_mask], dim=1)
        found: torch.Tensor = self.token_decoder.decode(self.tokens_to_decode(hidden, batch, positions))
        return found

    def tokens_to_decode(self, hidden: torch.Tensor, batch: ValueBatch, positions: torch.Tensor) -> TokensToDecode:
        """Return the states of some positions with what the decoder of tokens reads beside them."""
        return TokensToDecode(
            states_ND=hidden[positions],
            cells_N=positions.nonzero()[:, 0],
            cell_states_BD=hidden[:, 0],
            technologies_B=batch.technologies,
            technology_states_BD=self.technology_states(batch),
        )

    def cell_values(self, states: torch.Tensor, batch: ValueBatch, gene_ids: torch.Tensor) -> torch.Tensor:
        """Return the numbers (B, G) of genes, asked of the states (B, D) of cells.

        Parameters
        ----------
        states
            As `pool` gives them by ``"cls"``.
        batch
            Their cells, of which only the technologies are read.
        gene_ids
            Token ids, (G,) for the same genes in every cell or (B, G).
        """
        found: torch.Tensor = self.cell_decoder(states, self.genes(gene_ids), self.technology_states(batch))
        return found

    def neighbourhood_values(
        self,
        states: torch.Tensor,
        batch: ValueBatch,
        gene_ids: torch.Tensor,
        around: Surroundings | None = None,
    ) -> torch.Tensor:
        """Return the numbers (B, G) of genes of cells, asked of the mean states (B, D) of the cells around them.

        Parameters
        ----------
        states
            Mean states; where seen counts are joined (`NeighbourMix`), less the mean of the other cells of the slide.
        batch
            Their cells, of which only the technologies are read.
        gene_ids
            Token ids, (G,) for the same genes in every cell or (B, G).
        around
            The counts that are joined, where the configuration says so.

        Raises
        ------
        InputError
            If the model has no such decoder.
        """
        if self.neighbourhood_decoder is None:
            raise InputError("This model has no decoder of neighbourhoods (neighbourhood_decoder is false).")
        technology_states = self.technology_states(batch)
        if self.neighbour_mix is None:
            found: torch.Tensor = self.neighbourhood_decoder(states, self.genes(gene_ids), technology_states)
            return found
        assert around is not None
        assert self.count_output is not None
        # The decoder is linear in what it reads: without a technology, and of centred states, it moves no gene's level.
        nothing = None if technology_states is None else torch.zeros_like(technology_states)
        numbers = self.neighbourhood_decoder(states, self.genes(gene_ids), nothing)
        rates = self.count_output.log_shares(gene_ids, batch.technologies)
        mixed: torch.Tensor = self.neighbour_mix(numbers, around, gene_ids, batch.technologies, rates)
        return mixed

    def technology_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, T) of technologies from the states (B, D) of cells.

        Raises
        ------
        InputError
            If the model has no such head.
        """
        if self.discriminator is None:
            raise InputError("This model has no discriminator of technologies (discriminator is false).")
        logits: torch.Tensor = self.discriminator(states)
        return logits

    def technology_states(self, batch: ValueBatch) -> torch.Tensor | None:
        """Return vectors (B, D) of the technologies of cells; None where the model has none.

        Raises
        ------
        InputError
            If the technology of a cell is not known.
        """
        if self.technologies is None:
            return None
        if bool((batch.technologies < 0).any()):
            raise InputError("The technology of a cell is not known, and the decoders read it: give assay=.")
        vectors: torch.Tensor = self.technologies(batch.technologies)
        return vectors

    def blocks(self) -> Sequence[Layer]:
        """Return the layers."""
        return cast("list[Layer]", list(self.layers))

    def compiled(self) -> Sequence[tuple[nn.Module, str]]:
        """Return what each layer computes behind its attention: residual sums, norms, dropout and the MLP."""
        return [(layer, "after_mixing") for layer in self.blocks()]

    @property
    def adapted_layers(self) -> Sequence[str]:
        """Names of the linear maps of attention and of the MLPs behind it."""
        return [name for name, _ in self.named_modules() if _ADAPTED.fullmatch(name)]

    def operations(self, batch: ValueBatch) -> float:
        """Return the floating-point operations of `encode`, padding not counted.

        Counted are the matrices of the layers and of the values, and attention; norms are left out.
        """
        config = self.config
        assert config.mlp_width is not None
        of_layer = 4 * config.width**2 + 2 * config.width * config.mlp_width
        lengths = batch.lengths.double()
        asked = torch.zeros_like(lengths) if batch.asked_lengths is None else batch.asked_lengths.double()
        # Scores and their products with the values are 2 D each for a query and a key.
        seen = float((lengths.square() + asked * (lengths + 1.0)).sum())
        of_tokens = 2.0 * of_layer * config.n_layers * batch.n_tokens
        of_values = 2.0 * (config.width + config.width**2) * float(lengths.sum())
        return of_tokens + of_values + 4.0 * config.width * config.n_layers * seen

    @property
    def activation_width(self) -> int:
        """Values of a position in queries, keys and values together or in an MLP, the widest activation."""
        assert self.config.mlp_width is not None
        return max(3 * self.config.width, self.config.mlp_width)

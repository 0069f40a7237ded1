"""A slow twin of the published scGPT-spatial, written from a description of what it computes, on tensors by its names.

It shares no line with `spaf_model.scgpt_spatial`: dense, padded and eager. Every expert is computed for every token,
the technology is concatenated to every token, and every layer is computed for every position. Attention is torch's
fused kernel for the clock, or built whole.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

WIDTH, N_LAYERS, N_HEADS, N_TOKENS, N_EXPERTS = 512, 12, 8, 60_697, 4
PAD, CLS = 60_694, 60_695
TECHNOLOGIES = ("merfish", "visium", "visium_hd", "xenium")

Tensors = dict[str, torch.Tensor]


def v1_shapes() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the V1 layout."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.embedding.weight": (N_TOKENS, WIDTH),
        "flag_encoder.weight": (2, WIDTH),
        "batch_encoder.embedding.weight": (len(TECHNOLOGIES), WIDTH),
        "mvc_decoder.W.weight": (2 * WIDTH, WIDTH),
        "impute_mvc_decoder.W.weight": (2 * WIDTH, WIDTH),
    }

    def linear(name: str, n_out: int, n_in: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in), (n_out,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (WIDTH,)

    for name in ("encoder.enc_norm", "batch_encoder.enc_norm", "value_encoder.norm"):
        norm(name)
    linear("value_encoder.linear1", WIDTH, 1)
    linear("value_encoder.linear2", WIDTH, WIDTH)
    for layer in range(N_LAYERS):
        prefix = f"transformer_encoder.layers.{layer}"
        linear(f"{prefix}.self_attn.Wqkv", 3 * WIDTH, WIDTH)
        for name in ("self_attn.out_proj", "linear1", "linear2"):
            linear(f"{prefix}.{name}", WIDTH, WIDTH)
        norm(f"{prefix}.norm1")
        norm(f"{prefix}.norm2")
    for expert in range(N_EXPERTS):
        linear(f"decoder.moe.experts.{expert}.fc.0", WIDTH, 2 * WIDTH)
        linear(f"decoder.moe.experts.{expert}.fc.2", WIDTH, WIDTH)
        linear(f"decoder.moe.experts.{expert}.fc.4", 1, WIDTH)
    linear("decoder.moe.gate.gate", N_EXPERTS, 2 * WIDTH)
    linear("mvc_decoder.gene2query", WIDTH, WIDTH)
    linear("impute_mvc_decoder.gene2query", WIDTH, WIDTH)
    return shapes


def random_weights(seed: int) -> Tensors:
    """Return tensors of the V1 layout that keep activations of the size of one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in v1_shapes().items():
        drawn = torch.randn(shape, generator=generator)
        is_table = len(shape) == 2 and "embedding" in name
        if len(shape) == 2:
            tensors[name] = drawn * (0.3 if is_table or "flag" in name else shape[1] ** -0.5)
        else:
            tensors[name] = 0.1 * drawn + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return tensors


def write_folder(path: Path, tensors: Tensors, means: np.ndarray) -> list[str]:
    """Write a folder in the published layout and return the names of its genes."""
    genes = [f"G{token}" for token in range(PAD)]
    path.mkdir()
    torch.save(tensors, path / "best_model.pt")
    ids = {name: token for token, name in enumerate([*genes, "<pad>", "<cls>", "<eoc>"])}
    args = {"nlayers": N_LAYERS, "nheads": N_HEADS, "embsize": WIDTH, "d_hid": WIDTH, "dropout": 0.2, "n_bins": 51}
    (path / "vocab.json").write_text(json.dumps(ids))
    (path / "args.json").write_text(json.dumps(args | {"pad_token": "<pad>", "pad_value": -2}))
    (path / "batch_mapping_dict.json").write_text(json.dumps({name: row for row, name in enumerate(TECHNOLOGIES)}))
    rows = "".join(f"{token},{mean!r}\n" for token, mean in enumerate(means.tolist()))
    (path / "all_dict_mean_std.csv").write_text(f",mean\n{rows}")
    return genes


class Twin:
    """The published computation on tensors by published names."""

    def __init__(self, tensors: Tensors, *, fused: bool = False) -> None:
        self.tensors = tensors
        self.fused = fused

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Apply a linear map."""
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Apply a LayerNorm."""
        return F.layer_norm(x, (WIDTH,), self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def genes(self, ids: torch.Tensor) -> torch.Tensor:
        """Return normalised vectors of tokens."""
        return self.norm("encoder.enc_norm", F.embedding(ids, self.tensors["encoder.embedding.weight"]))

    def technology(self, rows: torch.Tensor) -> torch.Tensor:
        """Return normalised vectors of technologies."""
        return self.norm("batch_encoder.enc_norm", F.embedding(rows, self.tensors["batch_encoder.embedding.weight"]))

    def tokens(self, ids: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return vectors of genes with values."""
        x = F.relu(self.linear("value_encoder.linear1", values.clamp(max=512.0).unsqueeze(-1)))
        return self.genes(ids) + self.norm("value_encoder.norm", self.linear("value_encoder.linear2", x))

    def encode(
        self, ids: torch.Tensor, values: torch.Tensor, real: torch.Tensor, asked: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return hidden states, of known tokens and then of those asked for; `real` says which known ones there are."""
        x = self.tokens(ids, values)
        n_known = ids.shape[1]
        if asked is not None:
            x = torch.cat([x, self.genes(asked) + self.tensors["flag_encoder.weight"][1]], dim=1)
        for layer in range(N_LAYERS):
            x = self.layer(f"transformer_encoder.layers.{layer}", x, real, n_known)
        return x

    def layer(self, name: str, x: torch.Tensor, real: torch.Tensor, n_known: int) -> torch.Tensor:
        """Return the output of a layer, normalised after each sum."""
        n_cells, length, _ = x.shape
        qkv = self.linear(f"{name}.self_attn.Wqkv", x).view(n_cells, length, 3, N_HEADS, -1)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        known = self.attend(q[:, :, :n_known], k[:, :, :n_known], v[:, :, :n_known], real[:, None, None, :])
        known = self.linear(f"{name}.self_attn.out_proj", known.transpose(1, 2).flatten(2))
        parts = [known]
        if length > n_known:
            n_asked = length - n_known
            sees = torch.cat(
                [real[:, None, :].expand(-1, n_asked, -1), torch.eye(n_asked).bool().expand(n_cells, -1, -1)], 2
            )
            asked = self.attend(q[:, :, n_known:], k, v, sees.unsqueeze(1))
            parts.append(asked.transpose(1, 2).flatten(2))  # not projected
        x = self.norm(f"{name}.norm1", x + torch.cat(parts, dim=1))
        y = self.linear(f"{name}.linear2", F.relu(self.linear(f"{name}.linear1", x)))
        return self.norm(f"{name}.norm2", x + y)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
        """Return attention."""
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=sees)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return scores.masked_fill(~sees, float("-inf")).softmax(dim=-1) @ v

    def token_values(self, hidden: torch.Tensor, technologies: torch.Tensor) -> torch.Tensor:
        """Return the number of every token: all experts, of which the best two count."""
        beside = self.technology(technologies).unsqueeze(1).expand(-1, hidden.shape[1], -1)
        x = torch.cat([hidden, beside], dim=-1)
        scores = self.linear("decoder.moe.gate.gate", x).softmax(dim=-1)
        least = scores.topk(2, dim=-1).values[..., -1:]
        scores = F.normalize(torch.where(scores >= least, scores, torch.zeros_like(scores)), p=1.0, dim=-1)
        numbers = []
        for expert in range(N_EXPERTS):
            name = f"decoder.moe.experts.{expert}.fc"
            y = F.leaky_relu(self.linear(f"{name}.2", F.leaky_relu(self.linear(f"{name}.0", x))))
            numbers.append(self.linear(f"{name}.4", y).squeeze(-1))
        return (torch.stack(numbers, dim=-1) * scores).sum(dim=-1)

    def cell_values(self, decoder: str, states: torch.Tensor, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the numbers of genes by a decoder of cells, `mvc_decoder` or `impute_mvc_decoder`."""
        queries = self.linear(f"{decoder}.W", torch.sigmoid(self.linear(f"{decoder}.gene2query", self.genes(ids))))
        return torch.einsum("gd,bd->bg", queries, torch.cat([states, self.technology(rows)], dim=1))

    def embed(self, cells: list[tuple[np.ndarray, np.ndarray]], batch_size: int) -> np.ndarray:
        """Return states at CLS of cells (ids, values), in batches as they come, padded to the longest."""
        found = []
        for start in range(0, len(cells), batch_size):
            some = cells[start : start + batch_size]
            length = max(len(ids) for ids, _ in some) + 1
            ids = torch.full((len(some), length), PAD)
            values = torch.full((len(some), length), -2.0)
            ids[:, 0] = CLS
            for row, (genes, bins) in enumerate(some):
                ids[row, 1 : len(genes) + 1] = torch.from_numpy(genes)
                values[row, 1 : len(genes) + 1] = torch.from_numpy(bins)
            found.append(self.encode(ids, values, ids != PAD)[:, 0])
        return torch.cat(found).numpy()

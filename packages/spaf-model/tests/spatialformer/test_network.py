"""The network against an independent forward pass in numpy, written from the published description."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from spaf_model import RankedCells, SpatialFormer, SpatialFormerConfig, SpatialFormerNetwork, TokenBatch, Vocabulary

Weights = dict[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def layer_norm(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def glu(x: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    return x[..., :half] * x[..., half:] * sigmoid(x[..., half:])


def convolution(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    x = glu(linear(x, weights, f"{name}.expand"))
    taps = weights[f"{name}.depthwise"]
    reach = taps.shape[1] // 2
    y = np.zeros_like(x)
    for i in range(len(x)):
        for tap in range(taps.shape[1]):
            j = i + tap - reach
            if 0 <= j < len(x):
                y[i] += taps[:, tap] * x[j]
    spread = np.sqrt(weights[f"{name}.norm.running_var"] + 1e-5)
    y = (y - weights[f"{name}.norm.running_mean"]) / spread * weights[f"{name}.norm.weight"]
    y = y + weights[f"{name}.norm.bias"]
    return linear(y * sigmoid(y), weights, f"{name}.project")


def attention(x: np.ndarray, weights: Weights, name: str, config: SpatialFormerConfig) -> np.ndarray:
    length, width = x.shape
    n_heads, head_dim = config.n_heads, config.head_dim
    qkv = linear(x, weights, f"{name}.qkv")
    out = np.zeros_like(x)
    for head in range(n_heads):
        columns = slice(head * head_dim, (head + 1) * head_dim)
        q, k, v = (qkv[:, part * width : (part + 1) * width][:, columns] for part in range(3))
        slope = 2.0 ** (-8.0 * (head + 1) / n_heads)
        for i in range(length):
            scores = np.array([q[i] @ k[j] * config.attention_scale - slope * abs(i - j) for j in range(length)])
            exponentials = np.exp(scores - scores.max())
            out[i, columns] = (exponentials / exponentials.sum()) @ v
    return linear(out, weights, f"{name}.project")


def block(x: np.ndarray, weights: Weights, name: str, config: SpatialFormerConfig) -> np.ndarray:
    def mix(x: np.ndarray) -> np.ndarray:
        if name.endswith("convolution"):
            mixed = convolution(x, weights, f"{name}.mixer")
        else:
            mixed = attention(x, weights, f"{name}.mixer", config)
        return mixed * weights[f"{name}.mixer_affine.scale"] + weights[f"{name}.mixer_affine.bias"]

    def mlp(x: np.ndarray) -> np.ndarray:
        y = linear(glu(linear(x, weights, f"{name}.mlp.expand")), weights, f"{name}.mlp.project")
        return y * weights[f"{name}.mlp_affine.scale"] + weights[f"{name}.mlp_affine.bias"]

    if config.norm == "pre":
        x = x + mix(layer_norm(x, weights, f"{name}.mixer_norm"))
        return x + mlp(layer_norm(x, weights, f"{name}.mlp_norm"))
    x = layer_norm(x + mix(x), weights, f"{name}.mixer_norm")
    return layer_norm(x + mlp(x), weights, f"{name}.mlp_norm")


def reference_encode(weights: Weights, config: SpatialFormerConfig, ids: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Encode one sequence without padding, in double precision."""
    x = weights["embedding.tokens.weight"][ids] + weights["embedding.types.weight"][types]
    if config.gene_spatial_embedding:
        x = x + weights["embedding.gene_spatial.weight"][ids]
    x = layer_norm(x, weights, "embedding.norm")
    for layer in range(config.n_layers):
        for kind in ("convolution", "attention"):
            x = block(x, weights, f"layers.{layer}.{kind}", config)
    return layer_norm(x, weights, "final_norm") if config.norm == "pre" else x


def shrunk(config: SpatialFormerConfig, vocabulary: Vocabulary) -> SpatialFormerConfig:
    return dataclasses.replace(
        config,
        n_tokens=vocabulary.n_tokens,
        width=32,
        n_layers=2,
        n_heads=4,
        attention_scale=8**-0.5,
        colocalization_rank=6,
    )


CONFIGS = {
    "published v2": SpatialFormerConfig.published("v2"),
    "published v1": SpatialFormerConfig.published("v1"),
    "new": SpatialFormerConfig(),
}


@pytest.fixture(params=CONFIGS)
def network(
    request: pytest.FixtureRequest, vocabulary: Vocabulary, randomised: Callable[[torch.nn.Module], None]
) -> SpatialFormerNetwork:
    network = SpatialFormerNetwork(shrunk(CONFIGS[request.param], vocabulary))
    randomised(network)
    return network.eval()


@pytest.fixture
def pairs(ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary) -> TokenBatch:
    return TokenBatch.from_pairs(ranked, context, np.arange(5), np.arange(5, 10), vocabulary)


def weights_of(network: SpatialFormerNetwork) -> Weights:
    return {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}


@torch.no_grad()
def test_encode_and_heads_agree_with_the_reference(network: SpatialFormerNetwork, pairs: TokenBatch) -> None:
    weights = weights_of(network)
    config = network.config
    hidden = network.encode(pairs)
    gene_logits = network.masked_gene_logits(hidden)
    pair_logits = network.pair_logits(hidden)
    colocalization = network.colocalization_logits(hidden, pairs)
    for row, (first, second) in enumerate(pairs.lengths.tolist()):
        n = first + second
        expected = reference_encode(weights, config, pairs.ids[row, :n].numpy(), pairs.types[row, :n].numpy())
        np.testing.assert_allclose(hidden[row, :n].numpy(), expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(
            gene_logits[row, :n].numpy(), linear(expected, weights, "masked_gene_head"), atol=3e-5
        )
        np.testing.assert_allclose(pair_logits[row].numpy(), weights["pair_head.weight"] @ expected[0], atol=3e-5)
        for start, stop in ((0, first), (first, n)):
            logits = reference_colocalization(weights, config, expected[start:stop])
            np.testing.assert_allclose(colocalization[row, start:stop, start:stop].numpy(), logits, atol=5e-5)
        assert (colocalization[row, :first, first:] == 0).all()
        assert (colocalization[row, :, n:] == 0).all()


def reference_colocalization(weights: Weights, config: SpatialFormerConfig, hidden: np.ndarray) -> np.ndarray:
    logits = np.zeros((len(hidden), len(hidden)))
    for i, h_i in enumerate(hidden):
        for j, h_j in enumerate(hidden):
            if config.colocalization_head == "additive":
                logits[i, j] = weights["colocalization_head.project.weight"][0] @ np.concatenate([h_i, h_j])
            elif config.colocalization_head == "bilinear":
                p = weights["colocalization_head.project_i.weight"] @ h_i
                logits[i, j] = p @ (weights["colocalization_head.project_j.weight"] @ h_j)
            else:
                projection = weights["colocalization_head.project.weight"]
                products = (projection @ h_i) * (projection @ h_j)
                logits[i, j] = products @ weights["colocalization_head.weight"] + weights["colocalization_head.bias"]
    return logits


@torch.no_grad()
def test_padding_and_batch_mates_change_nothing(
    network: SpatialFormerNetwork, pairs: TokenBatch, ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary
) -> None:
    together = network.encode(pairs)
    for row in range(5):
        alone = network.encode(TokenBatch.from_pairs(ranked, context, np.array([row]), np.array([row + 5]), vocabulary))
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_explicit_and_sdpa_agree_through_the_network(network: SpatialFormerNetwork, pairs: TokenBatch) -> None:
    explicit, sdpa = (network.encode(pairs, kernel=kernel)[pairs.mask] for kernel in ("explicit", "sdpa"))
    torch.testing.assert_close(explicit, sdpa, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_weights_are_those_of_the_layers(network: SpatialFormerNetwork, pairs: TokenBatch) -> None:
    weights = list(network.attention_weights(pairs))
    assert len(weights) == network.config.n_layers
    n_rows, length = pairs.ids.shape
    for layer in weights:
        assert layer.shape == (n_rows, network.config.n_heads, length, length)
        torch.testing.assert_close(layer.sum(-1), torch.ones(layer.shape[:-1]))
    assert not torch.allclose(weights[0], weights[1])


@torch.no_grad()
def test_symmetric_head_is_symmetric(model: SpatialFormer, pairs: TokenBatch) -> None:
    hidden = model.network.eval().encode(pairs)
    logits = model.network.colocalization_logits(hidden, pairs)
    torch.testing.assert_close(logits, logits.transpose(1, 2), atol=1e-6, rtol=1e-6)


def test_dropout_and_drop_path_act_in_training_only(model: SpatialFormer, pairs: TokenBatch) -> None:
    network = model.network
    with torch.no_grad():
        assert torch.equal(network.eval().encode(pairs), network.encode(pairs))
        torch.manual_seed(0)
        assert not torch.allclose(network.train().encode(pairs), network.encode(pairs))


def test_every_parameter_learns_unless_frozen(vocabulary: Vocabulary, pairs: TokenBatch) -> None:
    for config in CONFIGS.values():
        network = SpatialFormerNetwork(dataclasses.replace(shrunk(config, vocabulary), drop_path=0.0)).train()
        hidden = network.encode(pairs)
        colocalization = network.colocalization_logits(hidden, pairs)
        genes = network.masked_gene_logits(hidden[pairs.mask])
        (genes.square().mean() + network.pair_logits(hidden).sum() + colocalization.square().mean()).backward()
        still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert still == ([] if config.train_type_embedding else ["embedding.types.weight"])


def test_training_does_not_depend_on_padding(vocabulary: Vocabulary, pairs: TokenBatch) -> None:
    """Batch statistics, hidden states and gradients are those of the real positions alone."""
    off = dict.fromkeys(("embedding_dropout", "conv_dropout", "attention_dropout", "mlp_dropout", "drop_path"), 0.0)
    network = SpatialFormerNetwork(dataclasses.replace(shrunk(SpatialFormerConfig(), vocabulary), **off)).train()
    wider = TokenBatch(
        ids=torch.nn.functional.pad(pairs.ids, (0, 7), value=vocabulary.pad),
        types=torch.nn.functional.pad(pairs.types, (0, 7)),
        lengths=pairs.lengths,
    )
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    results = []
    for batch in (pairs, wider):
        network.load_state_dict(start)
        network.zero_grad()
        hidden = network.encode(batch)[batch.mask]
        hidden.square().mean().backward()
        gradient = network.layers[0].convolution.mixer.depthwise.grad.clone()  # type: ignore[union-attr]
        statistics = network.layers[1].convolution.mixer.norm.running_var.clone()  # type: ignore[union-attr]
        results.append((hidden.detach(), gradient, statistics))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_pooled_states(model: SpatialFormer, ranked: RankedCells, context: np.ndarray) -> None:
    batch = TokenBatch.from_cells(ranked, context, np.array([0, 7]), model.vocabulary)
    hidden = model.network.encode(batch)
    assert torch.equal(model.network.pool(hidden, batch, "cls"), hidden[:, 0])
    genes = model.network.pool(hidden, batch, "gene")
    for row, n_genes in enumerate(ranked.n_genes[[0, 7]]):
        # CLS and four words of context stand before the genes, SEP behind them.
        torch.testing.assert_close(genes[row], hidden[row, 5 : 5 + n_genes + 1].mean(dim=0))


def test_what_a_trainer_asks_of_the_network(vocabulary: Vocabulary, ranked: RankedCells, context: np.ndarray) -> None:
    config = SpatialFormerConfig(n_tokens=vocabulary.n_tokens, width=16, n_layers=2, n_heads=2, conv_kernel=3)
    network = SpatialFormerNetwork(config)
    assert list(network.blocks()) == list(network.layers)
    names = [f"{block}.{part}" for block in ("convolution", "attention") for part in ("mlp.expand", "mlp.project")]
    names += ["attention.mixer.qkv", "attention.mixer.project"]
    assert sorted(network.adapted_layers) == sorted(f"layers.{layer}.{name}" for layer in (0, 1) for name in names)
    assert all(isinstance(network.get_submodule(name), torch.nn.Linear) for name in network.adapted_layers)
    batch = TokenBatch.from_cells(ranked, context, np.array([3, 4]), vocabulary)
    lengths = ranked.n_genes[[3, 4]] + 6
    of_mlp = 16 * 64 + 32 * 16
    of_layer = 2 * of_mlp + (16 * 32 + 16 * 3 + 16 * 16) + (16 * 48 + 16 * 16)
    expected = 2 * (2 * of_layer * lengths.sum() + 2 * 2 * 16 * (lengths**2).sum())
    assert network.operations(batch) == expected
    assert network.token_budget(torch.device("cpu")) == (8 << 20) // (4 * 64)
    assert network.token_budget(torch.device("meta")) == (128 << 20) // (4 * 64)

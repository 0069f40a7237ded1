"""The encoder of inference against the network in evaluation mode."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from spaf_model import RankedCells, SpatialFormerConfig, SpatialFormerNetwork, TokenBatch, Vocabulary
from spaf_model.spatialformer import InferenceEncoder

CONFIGS = {
    "published": SpatialFormerConfig.published(),
    "new": SpatialFormerConfig(),
    "new, post": SpatialFormerConfig(norm="post"),
}


@pytest.fixture(params=CONFIGS)
def network(
    request: pytest.FixtureRequest, vocabulary: Vocabulary, randomised: Callable[[torch.nn.Module], None]
) -> SpatialFormerNetwork:
    sizes = {"n_tokens": vocabulary.n_tokens, "width": 32, "n_layers": 2, "n_heads": 4, "attention_scale": 8**-0.5}
    network = SpatialFormerNetwork(dataclasses.replace(CONFIGS[request.param], **sizes))
    randomised(network)
    return network.eval()


@pytest.fixture(params=["padded", "unpadded"])
def batch(
    request: pytest.FixtureRequest, ranked: RankedCells, context: np.ndarray, vocabulary: Vocabulary
) -> TokenBatch:
    n_cells = 6 if request.param == "padded" else 1
    cells = np.arange(n_cells)
    return TokenBatch.from_pairs(ranked, context, cells, cells + 6, vocabulary)


def skip_without(matmul: str) -> None:
    if matmul == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")


@pytest.mark.parametrize("matmul", ["torch", "onednn"])
@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_agrees_with_the_network(network: SpatialFormerNetwork, batch: TokenBatch, matmul: str, kernel: str) -> None:
    skip_without(matmul)
    encoder = InferenceEncoder(network, matmul=matmul)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = network.encode(batch, kernel="explicit")
    hidden = encoder.encode(batch, kernel=kernel)  # type: ignore[arg-type]
    torch.testing.assert_close(hidden[batch.mask], expected[batch.mask], atol=1e-5, rtol=1e-5)
    cls = encoder.encode(batch, cls_only=True, kernel=kernel)  # type: ignore[arg-type]
    assert cls.shape == (expected.shape[0], 1, expected.shape[2])
    torch.testing.assert_close(cls[:, 0], expected[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("matmul", ["torch", "onednn"])
def test_leaves_the_network_as_it_was(network: SpatialFormerNetwork, batch: TokenBatch, matmul: str) -> None:
    skip_without(matmul)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    InferenceEncoder(network, matmul=matmul).encode(batch)  # type: ignore[arg-type]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_are_packed_in_the_dtype_of_autocast(network: SpatialFormerNetwork, batch: TokenBatch) -> None:
    with torch.no_grad():
        expected = network.encode(batch)[:, 0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder = InferenceEncoder(network)
        half = encoder.encode(batch, cls_only=True)[:, 0]
    assert encoder.dtype == torch.bfloat16
    assert encoder.matmul.name == "torch"
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(half, expected).min() > 0.995

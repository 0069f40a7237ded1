"""The encoder of inference against the network in evaluation mode."""

import dataclasses

import pytest
import torch

from spaf_model.scgpt_spatial import InferenceEncoder, ScGPTSpatial, ScGPTSpatialNetwork, ValueBatch, ValuedCells


def skip_without(matmul: str) -> None:
    if matmul == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")


@pytest.mark.parametrize("n_cells", [1, 8])
@pytest.mark.parametrize("matmul", ["torch", "onednn"])
@pytest.mark.parametrize("kernel", ["explicit", "sdpa"])
def test_agrees_with_the_network(
    model: ScGPTSpatial, valued: ValuedCells, n_cells: int, matmul: str, kernel: str
) -> None:
    skip_without(matmul)
    batch = valued.batch(valued.lengths.argsort()[-n_cells:])
    encoder = InferenceEncoder(model.network, matmul=matmul)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = model.network.encode(batch, kernel="explicit")
    hidden = encoder.encode(batch, kernel=kernel)  # type: ignore[arg-type]
    torch.testing.assert_close(hidden[batch.mask], expected[batch.mask], atol=2e-5, rtol=1e-4)
    cls = encoder.encode(batch, cls_only=True, kernel=kernel)  # type: ignore[arg-type]
    assert cls.shape == (n_cells, 1, 32)
    torch.testing.assert_close(cls[:, 0], expected[:, 0], atol=2e-5, rtol=1e-4)


def test_hidden_values_and_values_that_are_rates(model: ScGPTSpatial, batch: ValueBatch) -> None:
    hidden = dataclasses.replace(batch, values=batch.values.where(batch.values != 50.0, torch.tensor(-1.0)))
    with torch.no_grad():
        expected = model.network.encode(hidden)
    mask = batch.mask
    torch.testing.assert_close(InferenceEncoder(model.network).encode(hidden)[mask], expected[mask])
    rates = ScGPTSpatialNetwork(dataclasses.replace(model.config, value_style="rates")).eval()
    rates.load_state_dict(model.network.state_dict())
    of_rates = dataclasses.replace(batch, values=batch.values * 0.3)
    with torch.no_grad():
        expected = rates.encode(of_rates)
    torch.testing.assert_close(InferenceEncoder(rates).encode(of_rates)[mask], expected[mask])


def test_weights_are_packed_in_the_dtype_of_autocast(model: ScGPTSpatial, batch: ValueBatch) -> None:
    with torch.no_grad():
        expected = model.network.encode(batch)[:, 0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder = InferenceEncoder(model.network)
        half = encoder.encode(batch, cls_only=True)[:, 0]
    assert encoder.dtype == torch.bfloat16
    assert encoder.matmul.name == "torch"
    assert torch.nn.functional.cosine_similarity(half, expected).min() > 0.99

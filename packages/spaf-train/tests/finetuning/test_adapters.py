import numpy as np
import pytest
import torch

from spaf_model import SpatialFormer, TokenBatch, rank_genes
from spaf_train.finetuning import FinetuneConfig
from spaf_train.finetuning.adapters import adapted, training_mode

CONFIG = FinetuneConfig(method="lora", rank=2, alpha=8.0, dropout=0.1)


@pytest.fixture
def model(model_dir):
    return SpatialFormer.from_pretrained(model_dir)


@pytest.fixture
def batch(model):
    genes = model.vocabulary.gene_token_ids
    counts = np.random.default_rng(0).integers(1, 9, 40)
    tokens = np.concatenate([genes[:14], genes[5:18], genes[9:22]])
    ranked = rank_genes(np.array([0, 14, 27, 40]), tokens, counts, model.vocabulary.scale)
    context = np.array([[model.vocabulary.context_id(kind, "unknown") for kind in model.vocabulary.context]] * 3)
    return TokenBatch.from_cells(ranked, context, np.arange(3), model.vocabulary)


def train(network, batch, steps=5):
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        training_mode(network, CONFIG)
        network.encode(batch)[:, 0, ::2].sum().backward()
        optimizer.step()


def test_only_adapters_change_and_the_merged_network_equals_the_adapted_one(model, batch):
    network = model.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    with torch.no_grad():
        hidden_before = network.encode(batch)
    with adapted(network, CONFIG):
        with torch.no_grad():
            network.eval()
            torch.testing.assert_close(network.encode(batch), hidden_before)
        train(network, batch)
        state = network.state_dict()
        for name, tensor in state.items():
            if "lora_" not in name:
                assert torch.equal(tensor, before[name.replace(".base_layer", "")]), name
        trainable = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        assert trainable
        assert all("lora_" in name for name in trainable)
        network.eval()
        with torch.no_grad():
            hidden_adapted = network.encode(batch)
    assert (hidden_adapted - hidden_before).abs().max() > 0.01
    with torch.no_grad():
        torch.testing.assert_close(network.encode(batch), hidden_adapted, rtol=1e-4, atol=1e-5)
    after = network.state_dict()
    assert set(after) == set(before)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    adapted_names = ("attention.mixer.qkv", "attention.mixer.project", "mlp.expand", "mlp.project")
    assert changed == {
        name for name in before if name.endswith(".weight") and name.removesuffix(".weight").endswith(adapted_names)
    }
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == flags


def test_a_failure_leaves_the_network_as_it_was(model, batch):
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}

    def fail():
        with adapted(model.network, CONFIG):
            train(model.network, batch)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    after = model.network.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_same_seed_same_adapters(model_dir):
    first, second, third = (SpatialFormer.from_pretrained(model_dir).network for _ in range(3))
    state = torch.random.get_rng_state()
    with adapted(first, CONFIG), adapted(second, CONFIG), adapted(third, FinetuneConfig(rank=2, seed=1)):
        one, other, different = (
            network.layers[0].attention.mixer.qkv.lora_A["default"].weight for network in (first, second, third)
        )
        assert torch.equal(one, other)
        assert not torch.equal(one, different)
    assert torch.equal(torch.random.get_rng_state(), state)

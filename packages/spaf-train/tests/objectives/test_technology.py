import pytest
import torch

from spaf_model import InputError
from spaf_train import read_config

ON = ["model.discriminator=true", "objectives.technology.enabled=true", "objectives.technology.reversal=2.0"]


def test_the_head_learns_and_the_states_get_the_reverse(spots):
    """The gradient of the encoder is minus twice what it would be, and that of the head as it is."""
    gradients = {}
    for reverse in (True, False):
        model, stream = spots(*ON)
        batch = next(iter(stream.one_epoch()))
        network = model.network
        hidden = network.encode(batch.masked)
        targets = batch.targets["technology"]
        if reverse:
            stream.asked["technology"].loss(network, hidden, targets, batch.masked).sum.backward()
        else:
            logits = network.technology_logits(network.pool(hidden, batch.masked, "cls")[targets.rows])
            torch.nn.functional.cross_entropy(logits, targets.labels, reduction="sum").backward()
        gradients[reverse] = (network.layers[0].expand.weight.grad, network.discriminator.layers[0].weight.grad)
    torch.testing.assert_close(gradients[True][0], -2.0 * gradients[False][0])
    torch.testing.assert_close(gradients[True][1], gradients[False][1])


def test_labels_are_the_technologies_of_the_cells(spots):
    _, stream = spots(*ON)
    for batch in stream.one_epoch():
        targets = batch.targets["technology"]
        assert targets.labels.tolist() == batch.unmasked.technologies[targets.rows].tolist()
        assert targets.weight == len(targets.rows) > 0


def test_a_model_without_the_head_is_refused():
    with pytest.raises(InputError, match=r"needs model\.discriminator"):
        read_config("scgpt_spatial", overrides=["objectives.technology.enabled=true"])

import pytest
import torch
from safetensors.torch import load_file, save_file

from spaf_model import InputError, load_model


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda name, tensor: -tensor if name.endswith("running_var") else tensor, "a variance, is below 0"),
        (lambda name, tensor: tensor.double() * 1e300 if tensor.is_floating_point() else tensor, "too large"),
        (lambda name, tensor: tensor.to(torch.int32) if name.endswith("weight") else tensor, "is torch.int32"),
    ],
)
def test_weights_that_cannot_be_are_refused_when_they_are_read(directory, change, sentence):
    file = directory / "model.safetensors"
    save_file({name: change(name, tensor).contiguous() for name, tensor in load_file(file).items()}, file)
    with pytest.raises(InputError, match=sentence):
        load_model(directory)


def test_embeddings_without_numbers_are_refused_and_not_written(directory, adata):
    model = load_model(directory)
    with torch.no_grad():
        for tensor in model.network.parameters():
            tensor.mul_(1e30)
    with pytest.raises(InputError, match="an embedding that is not finite, such as"):
        model.embed(adata)
    assert "X_SpaF" not in adata.obsm

"""Low-rank adapters inside a network, and what of a network is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from spaf_model import ConvolutionMixer, SpatialFormerNetwork

if TYPE_CHECKING:
    from spaf_train.finetuning.config import FinetuneConfig

# The linear maps of attention, and of the MLPs behind attention and convolution.
_ADAPTED = r".*\.(attention\.mixer\.(qkv|project)|mlp\.(expand|project))"


@contextmanager
def adapted(network: SpatialFormerNetwork, config: FinetuneConfig) -> Iterator[None]:
    """Put adapters into a network; at the end they are merged into its weights and gone.

    Meanwhile all other weights are frozen. Where the body fails, the adapters are taken out unmerged, so the network
    is what it was.

    Parameters
    ----------
    network
        Changed in place.
    config
        Rank, alpha, dropout and seed.
    """
    # peft brings in transformers, which takes seconds, and only this needs it.
    from peft import LoraConfig, LoraModel

    trainable = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    # peft's weights are drawn from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        lora = LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft divides it, whatever it is
            lora_dropout=config.dropout,
            target_modules=_ADAPTED,
            bias="none",
        )
        wrapped = LoraModel(network, lora, "default")
    try:
        yield
    except BaseException:
        wrapped.unload()
        raise
    else:
        wrapped.merge_and_unload()
    finally:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(trainable[name])


def training_mode(network: SpatialFormerNetwork, config: FinetuneConfig) -> None:
    """Switch dropout on; with adapters the convolutions stay as in evaluation, so that their statistics stay too."""
    network.train()
    if config.method == "lora":
        for module in network.modules():
            if isinstance(module, ConvolutionMixer):
                module.eval()

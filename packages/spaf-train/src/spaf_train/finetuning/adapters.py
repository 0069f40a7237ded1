"""Low-rank adapters inside a network, and what of a network is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from spaf_train._checks import require

if TYPE_CHECKING:
    from spaf_model import Network
    from spaf_train.finetuning.config import FinetuneConfig


@contextmanager
def adapted(network: Network[Any], config: FinetuneConfig) -> Iterator[None]:
    """Put adapters into a network; at the end they are merged into its weights and gone.

    Meanwhile all other weights are frozen. Where the body fails, the adapters are taken out unmerged, so the network
    is what it was.

    Parameters
    ----------
    network
        Changed in place.
    config
        Rank, alpha, dropout and seed.

    Raises
    ------
    InputError
        If the family names no layers for adapters.
    """
    require(
        bool(network.adapted_layers),
        f"{type(network).__name__} has no layers for adapters: fine-tune it with method=full or method=probe.",
    )
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
            target_modules=list(network.adapted_layers),
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


def training_mode(network: Network[Any], config: FinetuneConfig) -> None:
    """Switch dropout on; with adapters what has statistics stays as in evaluation, so that these stay too."""
    network.train()
    if config.method == "lora":
        for module in network.statistics():
            module.eval()

"""Compiled training: what a block does to each position apart becomes one generated kernel forward and one back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from spaf_model import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spaf_model import Network


def check_compiler(device: torch.device) -> None:
    """Raise InputError if torch cannot compile for a device."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise InputError(
                "run.compile needs the package triton on a GPU, and it is not there; install it or set run.compile to "
                "false."
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "run.compile needs a C++ compiler on a CPU, and there is none; install g++ or set run.compile to false."
        ) from error


def compile_blocks(network: Network[Any]) -> None:
    """Have a network compute with compiled code, in training, what its family says is worth it (`Network.compiled`).

    One compilation, at the first step, serves all blocks and every size of batch. On a GPU dropout draws the numbers
    that it would draw otherwise, so that losses agree to rounding with those of a plain run; on a CPU, where plain
    dropout has a way of its own, it draws others. Names of parameters and states do not change, and evaluation is not
    compiled.
    """
    for module, name in network.compiled():
        plain = getattr(module, name)
        compiled = torch.compile(plain, dynamic=True, fullgraph=True, options={"fallback_random": True})
        # On the instance, so that nothing is renamed.
        setattr(module, name, functools.partial(_in_training, module, compiled, plain))


def _in_training(
    module: nn.Module, compiled: Callable[..., Tensor], plain: Callable[..., Tensor], *tensors: Tensor
) -> Tensor:
    """Choose the plain code in evaluation, which would be compiled apart, for longer than it takes."""
    return (compiled if module.training and torch.is_grad_enabled() else plain)(*tensors)

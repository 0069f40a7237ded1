"""Compiled training: what a block does to each position apart becomes one generated kernel forward and one back."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spaf_model import InputError, SpatialFormerNetwork


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


def compile_blocks(network: SpatialFormerNetwork) -> None:
    """Have the blocks of a network compute what follows their mixers with compiled code, in training.

    Residual sums, norms, dropout and the gated MLP are fused. Attention and convolution are kernels of a library, and
    the statistics of the masked norm depend on the padding: they stay as they are, so that one compilation, at the
    first step, serves all blocks and every size of batch. On a GPU dropout draws the numbers that it would draw
    otherwise, so that losses agree to rounding with those of a plain run; on a CPU, where plain dropout has a way of
    its own, it draws others. Names of parameters and states do not change, and evaluation is not compiled.
    """
    for layer in network.blocks():
        for block in (layer.convolution, layer.attention):
            plain = block.after_mixing
            compiled = torch.compile(plain, dynamic=True, fullgraph=True, options={"fallback_random": True})
            # On the instance, so that nothing is renamed.
            block.after_mixing = functools.partial(_in_training, block, compiled, plain)  # type: ignore[method-assign]


def _in_training(
    block: nn.Module,
    compiled: Callable[[Tensor, Tensor], Tensor],
    plain: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    mixed: Tensor,
) -> Tensor:
    """Choose the plain code in evaluation, which would be compiled apart, for longer than it takes."""
    return (compiled if block.training and torch.is_grad_enabled() else plain)(x, mixed)

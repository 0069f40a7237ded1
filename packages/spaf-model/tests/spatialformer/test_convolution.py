import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spaf_model.kernels import AttentionBias, KernelChoice
from spaf_model.spatialformer.convolution import MaskedBatchNorm, depthwise_convolution
from spaf_model.spatialformer.sequences import SequenceContext


def test_depthwise_convolution_agrees_with_conv1d_and_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for fast in (True, False):
        generator.manual_seed(0)
        x = torch.randn(3, 11, 6, generator=generator, requires_grad=True)
        weight = torch.randn(6, 5, generator=generator, requires_grad=True)
        bias = torch.randn(6, generator=generator, requires_grad=True)
        if fast:
            y = depthwise_convolution(x, weight, bias)
        else:
            y = F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, padding=2, groups=6).transpose(1, 2)
        y.square().sum().backward()
        gradients.append((y.detach(), x.grad, weight.grad, bias.grad))
    for fast_tensor, slow_tensor in zip(*gradients, strict=True):
        torch.testing.assert_close(fast_tensor, slow_tensor, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_is_convolved_in_single(autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 11, 6, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(6, 5, generator=generator, requires_grad=True)
    bias = torch.randn(6, generator=generator, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = depthwise_convolution(x, weight, bias)
    with torch.no_grad():
        expected = F.conv1d(x.float().transpose(1, 2), weight.unsqueeze(1), bias, padding=2, groups=6).transpose(1, 2)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected.bfloat16())
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[:, 2], x.detach().float().sum((0, 1)))


def test_small_shapes_come_back_in_half_precision() -> None:
    # On processors with AVX-512 and bf16, oneDNN's own convolution in bf16 never returns from the first three.
    shapes = [(1, 66, 32), (1, 70, 32), (1, 130, 32), (1, 66, 64), (6, 66, 32), (1, 1, 16), (8, 200, 512)]
    script = f"""
import torch
from spaf_model.spatialformer.convolution import depthwise_convolution
torch.set_num_threads(2)
for n_cells, length, width in {shapes}:
    x, weight = torch.randn(n_cells, length, width, requires_grad=True), torch.randn(width, 17, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = depthwise_convolution(x, weight, torch.zeros(width))
    y.sum().backward()
"""
    path = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}){script}"]
    subprocess.run(command, check=True, timeout=120)


def test_batch_norm_sees_real_positions_only() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 3, generator=generator)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    x[~mask] = 1e6
    bias = AttentionBias(1, 6, mask, device=torch.device("cpu"))
    positions = mask.reshape(-1).nonzero().squeeze(1)
    context = SequenceContext(
        mask=mask, positions=positions, shape=(2, 6), bias=bias, kernel=KernelChoice("explicit", "test")
    )
    norm = MaskedBatchNorm(3, eps=1e-5, momentum=0.05)
    normed = norm(x, context)
    real = x[mask]
    expected = (real - real.mean(0)) / torch.sqrt(real.var(0, unbiased=False) + 1e-5)
    torch.testing.assert_close(normed[mask], expected)
    torch.testing.assert_close(norm.running_mean, 0.05 * real.mean(0))
    torch.testing.assert_close(norm.running_var, 0.95 + 0.05 * real.var(0, unbiased=True))
    scale, shift = norm.affine()
    by_torch = F.batch_norm(real, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, 1e-5)
    torch.testing.assert_close(real * scale + shift, by_torch)


def context_of(x: torch.Tensor) -> SequenceContext:
    bias = AttentionBias(1, x.shape[1], None, device=torch.device("cpu"))
    return SequenceContext(
        mask=None, positions=None, shape=(x.shape[0], x.shape[1]), bias=bias, kernel=KernelChoice("explicit", "test")
    )


def test_gathered_statistics_of_parts_move_as_those_of_the_whole() -> None:
    x = 3.0 + 2.0 * torch.randn(9, 5, 4, generator=torch.Generator().manual_seed(0))
    whole, parts = (MaskedBatchNorm(4, eps=1e-5, momentum=0.05) for _ in range(2))
    parts.gather_statistics()
    for _ in range(2):  # steps
        whole(x, context_of(x))
        for part in x.split([1, 6, 2]):
            own, before = MaskedBatchNorm(4, eps=1e-5, momentum=0.05), parts.running_mean.clone()
            torch.testing.assert_close(parts(part, context_of(part)), own(part, context_of(part)))
            torch.testing.assert_close(parts.running_mean, before)
        parts.move_statistics(parts.gathered_statistics())
        torch.testing.assert_close(parts.running_mean, whole.running_mean)
        torch.testing.assert_close(parts.running_var, whole.running_var)
    before = parts.running_mean.clone()
    parts.counts = False
    parts(x, context_of(x))
    parts.move_statistics(parts.gathered_statistics())  # of nothing
    torch.testing.assert_close(parts.running_mean, before)

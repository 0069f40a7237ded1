"""How the depthwise convolution is best computed for half-precision input on a CPU.

``python benchmarks/depthwise_convolution.py`` times, on bf16 input and at the sizes of small and published models:
the convolution of SpaF (converted to single precision and back), a sum of shifted products, `unfold`, torch's
convolution without oneDNN, and oneDNN's own in bf16 (where the shape is known to come back: see `bf16_shapes.py`).
Beside them the first matrix product of the same block in bf16, for scale. Medians of seven, in milliseconds.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from _machine import describe, write_results
from torch import Tensor

from spaf_model.spatialformer import depthwise_convolution

TAPS = 17
SIZES = ((1, 66, 64), (64, 64, 64), (16, 90, 512), (64, 130, 512))  # cells, length, width


def shifted_products(x: Tensor, weight: Tensor) -> Tensor:
    """Sum the taps one after the other."""
    padded = F.pad(x, (0, 0, TAPS // 2, TAPS // 2))
    y = padded[:, : x.shape[1]] * weight[:, 0]
    for tap in range(1, TAPS):
        y = y.addcmul_(padded[:, tap : tap + x.shape[1]], weight[:, tap])
    return y


def unfolded(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply windows by taps."""
    windows = F.pad(x, (0, 0, TAPS // 2, TAPS // 2)).unfold(1, TAPS, 1)
    return (windows * weight).sum(-1)


def half_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve in bf16 as torch would."""
    image = x.transpose(1, 2).unsqueeze(2)
    return F.conv2d(image, weight[:, None, None, :], padding=(0, TAPS // 2), groups=len(weight)).squeeze(2)


def without_onednn(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve in bf16 by torch's own loops."""
    torch._C._set_mkldnn_enabled(False)
    try:
        return half_convolution(x, weight)
    finally:
        torch._C._set_mkldnn_enabled(True)


def milliseconds(way: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> float:
    """Return the median time of a call."""
    way(x, weight)
    seen = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(3):
            way(x, weight)
        seen.append((time.perf_counter() - start) / 3 * 1e3)
    return round(statistics.median(seen), 3)


def main() -> None:
    """Measure, print and write the results."""
    results = {"machine": describe("torch"), "vectors": torch.backends.cpu.get_cpu_capability(), "milliseconds": []}
    results["bf16_units"] = bool(torch.cpu._is_avx512_bf16_supported())
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "single": lambda x, weight: depthwise_convolution(x, weight, None),
        "shifted products": shifted_products,
        "unfold": unfolded,
        "without oneDNN": without_onednn,
        "bf16 of oneDNN": half_convolution,
    }
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for n_cells, length, width in SIZES:
            x = torch.randn(n_cells, length, width).bfloat16()
            weight = torch.randn(width, TAPS).bfloat16()
            expand = torch.randn(2 * width, width).bfloat16()
            row = {"threads": threads, "cells": n_cells, "length": length, "width": width}
            with torch.inference_mode():
                row |= {name: milliseconds(way, x, weight) for name, way in ways.items()}
                row["first product of the block"] = milliseconds(F.linear, x, expand)
            print(row, flush=True)
            results["milliseconds"].append(row)
    write_results("depthwise_convolution", results)


if __name__ == "__main__":
    main()

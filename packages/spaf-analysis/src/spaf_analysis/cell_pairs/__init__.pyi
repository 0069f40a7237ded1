"""Do neighbouring cells look like neighbours to a model? Judged on held-out cells, beside baselines."""

from .compute import SCORES, CellPairBenchmark, judge, separation
from .tool import benchmark_cell_pairs, cell_pairs

__all__ = [
    "SCORES",
    "CellPairBenchmark",
    "benchmark_cell_pairs",
    "cell_pairs",
    "judge",
    "separation",
]

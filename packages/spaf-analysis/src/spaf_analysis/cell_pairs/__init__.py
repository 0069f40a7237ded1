"""Do neighbouring cells look like neighbours to a model? Judged on held-out cells, beside baselines."""

from spaf_analysis.cell_pairs.compute import MAX_PAIRS, SCORES, CellPairBenchmark, judge, separation
from spaf_analysis.cell_pairs.tool import benchmark_cell_pairs, cell_pairs

__all__ = [
    "MAX_PAIRS",
    "SCORES",
    "CellPairBenchmark",
    "benchmark_cell_pairs",
    "cell_pairs",
    "judge",
    "separation",
]

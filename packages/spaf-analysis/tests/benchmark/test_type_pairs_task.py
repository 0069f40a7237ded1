"""Pairs of types in the benchmark: one half foretells the other, and not where labels are shuffled."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spaf_analysis import InputError
from spaf_analysis.benchmark import rows_of, run_benchmark
from spaf_analysis.benchmark.config import benchmark_of
from spaf_analysis.benchmark.tasks.type_pairs import MISFIT, OBSERVED, RANDOM, TypePairs


@pytest.fixture
def tissue():
    """Four types in patches of 60 um, some of which lie beside each other more often than others."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0, [1200, 300], (4000, 2))
    square = np.floor(places / 60).astype(int)
    kind = (square[:, 0] + 2 * square[:, 1]) % 4
    mixed = rng.random(len(kind)) < 0.2
    kind[mixed] = rng.integers(0, 4, mixed.sum())
    table = ad.AnnData(
        np.ones((4000, 1), np.float32),
        obs=pd.DataFrame({"kind": [f"t{one}" for one in kind]}, index=np.arange(4000).astype(str)),
    )
    table.obsm["spatial"] = places
    return table


def judged(table, folder, **options):
    table.write_h5ad(folder / "cells.h5ad")
    content = {
        "replicates": 100,
        "data": {"tissue": {"path": "cells.h5ad", "label": "kind"}},
        "methods": {"any": {"key": "spatial"}},
        "tasks": {"type-pairs": options},
    }
    return run_benchmark(benchmark_of(content, folder), folder / "out")


def test_a_half_foretells_the_other_but_not_where_labels_are_shuffled(tissue, tmp_path):
    cells = judged(tissue, tmp_path)
    (cell,) = cells
    assert cell.reason == ""
    found = {(one.case, one.name): one.value for one in cell.judged.scores}
    assert found["as cells lie", OBSERVED] < 0.3 * found["as cells lie", RANDOM]
    assert found["labels shuffled", RANDOM] < 0.2
    assert found["labels shuffled", OBSERVED] > found["labels shuffled", RANDOM]
    rows = {row.case: row for row in rows_of(cells) if row.method == OBSERVED and row.measure == MISFIT}
    assert rows["as cells lie"].verdict == "wins"
    assert rows["labels shuffled"].verdict in ("ties", "loses")


def test_too_few_pairs_and_odd_options_are_a_sentence(tissue, tmp_path):
    (cell,) = judged(tissue, tmp_path, min_expected=1e6)
    assert "0 pairs of types have 1e+06 expected neighbours in both halves; 6 are needed" in cell.reason
    with pytest.raises(InputError, match="radius must be above 0, not -1"):
        TypePairs(radius=-1.0)

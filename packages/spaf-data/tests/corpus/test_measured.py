from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from spaf_data.corpus import Corpus, write_corpus
from spaf_data.corpus.manifest import Manifest
from spaf_data.corpus.measured import genes_of, runs_of


@given(st.sets(st.integers(0, 40)))
def test_runs_say_which_genes_they_are_of(codes: set[int]) -> None:
    runs = runs_of(np.array(sorted(codes), dtype=np.int64))
    assert np.flatnonzero(genes_of(runs, 41)).tolist() == sorted(codes)
    assert all(first < behind for first, behind in runs)
    assert all(one[1] < other[0] for one, other in pairwise(runs))


@pytest.fixture
def two_panels(make_slide: Callable[..., ad.AnnData], tmp_path: Path) -> Corpus:
    slides = [make_slide(n_cells=30, seed=seed) for seed in (0, 1)]
    slides[1] = slides[1][:, 3:].copy()
    for number, slide in enumerate(slides):
        slide.obs["slide"] = f"slide{number}"
    kept = np.arange(slides[1].n_vars) > 0
    slides[1].X = (
        slides[1].X @ sparse.diags_array(kept.astype(np.int32), dtype=np.int32)
    ).tocsr()  # the first is in no cell
    return write_corpus(slides, tmp_path / "corpus", colocalization_key=None)


def test_the_manifest_tells_what_is_not_measured_from_what_is_zero(two_panels: Corpus) -> None:
    assert two_panels.measured("slide0").all()
    expected = np.ones(len(two_panels.genes), dtype=bool)
    expected[:3] = False
    np.testing.assert_array_equal(two_panels.measured("slide1"), expected)


def test_older_corpora_say_what_some_cell_has(two_panels: Corpus) -> None:
    for record in two_panels.manifest.slides.values():
        del record["measured"]
    two_panels.manifest.write(two_panels.path)
    assert "measured" not in Manifest.read(two_panels.path).slides["slide1"]
    older = Corpus(two_panels.path)
    assert older.measured("slide0").all()
    found = older.measured("slide1")
    assert not found[:4].any()
    assert found[4:].sum() > 0

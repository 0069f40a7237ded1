"""What becomes of single slides of a build, the extreme ones too."""

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_data import BuildOptions, Corpus, InputError, SlideSource, build_corpus


def test_errors_of_a_slide_name_it(bundle, tmp_path):
    with pytest.raises(InputError, match="slide s7: no cell has 9999 transcripts"):
        build_corpus([SlideSource(path=bundle, slide="s7")], tmp_path / "out", BuildOptions(min_transcripts=9999))
    assert not list(tmp_path.iterdir())


def transcripts_of(cells, gap=40.0):
    """Write a table of cells with the given numbers of transcripts of genes with underscores, in a row."""
    rng = np.random.default_rng(2)
    cell = np.repeat(np.arange(len(cells)), cells)
    n = len(cell)
    return pd.DataFrame(
        {
            "cell_id": cell,
            "feature_name": rng.choice(["HLA_A", "_B", "C_", "D__D"], n),
            "x_location": (gap * cell + rng.uniform(0, 30, n)).astype(np.float32),
            "y_location": rng.uniform(0, 30, n).astype(np.float32),
            "qv": 40.0,
        }
    )


@pytest.mark.parametrize("cells", [[60], [1], [1, 1, 1, 1, 1, 1], [50_000]])
def test_extreme_slides(write_table, tmp_path, cells):
    """One cell, cells with one transcript, a cell with 50,000."""
    folder = write_table(transcripts_of(cells))
    record = build_corpus([SlideSource(path=folder, slide="s")], tmp_path / "out", BuildOptions(min_transcripts=1))
    assert record["n_cells"] == len(cells)
    assert record["n_transcripts"] == sum(cells)
    adata = anndata.read_h5ad(tmp_path / "out" / "slides" / "s.h5ad")
    assert adata.obs["n_transcripts"].tolist() == cells
    assert set(adata.var_names) <= {"HLA_A", "_B", "C_", "D__D"}
    corpus = Corpus(tmp_path / "out" / "corpus")
    corpus.verify()
    assert sum(corpus.read(ref).counts.sum() for ref in corpus.block_refs()) == sum(
        count for count, split in zip(cells, adata.obs["split"], strict=True) if split != "gap"
    )


def test_cells_too_far_apart_to_be_neighbours_are_said(write_table, tmp_path, caplog):
    folder = write_table(transcripts_of([50] * 8, gap=100.0))
    record = build_corpus([SlideSource(path=folder, slide="s")], tmp_path / "out", BuildOptions(min_transcripts=1))
    assert record["n_cells"] == 8
    assert "slide s: no two cells lie within 30 um (radius), so it has no positive pairs" in caplog.text

"""Sentences on tables name no option that an analysis lacks."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spaf_analysis import InputError
from spaf_analysis.genes import checked_counts
from spaf_analysis.tables import embed_where_missing, labels_of, slide_names


@pytest.fixture
def table():
    return ad.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame({"slide": ["a", None, "b"]}, index=list("xyz")))


def test_cells_without_a_slide(table):
    with pytest.raises(InputError, match="for 1 of its 3 cells, the first is 'y'; fill the column in") as said:
        slide_names(table)
    assert "slide_key" not in str(said.value)
    assert "one_slide" not in str(said.value)


def test_values_that_are_no_counts_name_the_layer_where_there_is_a_choice(table):
    table.X = np.log1p(table.X)
    with pytest.raises(InputError, match=r"the table: .* raw counts are needed: in X\.$"):
        checked_counts(table, None, "the table")
    with pytest.raises(InputError, match=r"in X, or in a layer that is named with layer \(--layer\)\.$"):
        checked_counts(table, None, "the query", option="layer (--layer)")
    table.X = None
    with pytest.raises(InputError, match="the table has no X; put its counts there"):
        checked_counts(table, None, "the table")


def test_an_embedding_that_no_model_is_there_to_make(table):
    with pytest.raises(InputError, match="^a.h5ad: obsm has no embedding 'X'; it has: nothing; name another"):
        embed_where_missing(table, "X", None, where="a.h5ad")


def test_what_annotation_could_not_tell_has_no_label(table):
    table.obs["kind"] = ["a", "unknown", "b"]
    assert labels_of(table, "kind", "cell_type")[1] == ["a", "b", "unknown"]
    table.uns["kind"] = {"share_unknown": 1 / 3}
    codes, names = labels_of(table, "kind", "cell_type")
    assert (codes.tolist(), names) == ([0, -1, 1], ["a", "b"])

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spaf_analysis as spaf
from spaf_analysis import InputError


def spots_with_truth() -> tuple[ad.AnnData, np.ndarray]:
    rng = np.random.default_rng(0)
    spots = ad.AnnData(rng.poisson(2.0, (30, 12)).astype(np.float32))
    spots.obsm["spatial"] = rng.uniform(0, 500, (30, 2))
    return spots, rng.dirichlet(np.ones(4), 30)


def test_proportions_of_another_tool_are_taken():
    spots, truth = spots_with_truth()
    spots.obsm["proportions_error"] = pd.DataFrame(truth, index=spots.obs_names)
    spots.obs["proportions_fits"] = True
    scores = pd.DataFrame(truth * 7.0, index=spots.obs_names, columns=["T/NK", "b", "c", "d"])
    scores.iloc[2] = 0.0
    spots.obsm["tangram_ct_pred"] = scores
    spaf.tl.take_proportions(spots)
    taken = spots.obsm["proportions"]
    assert list(taken.columns) == ["T_NK", "b", "c", "d"]
    np.testing.assert_allclose(np.delete(taken.to_numpy(), 2, axis=0), np.delete(truth, 2, axis=0))
    assert taken.iloc[2].isna().all()
    assert spots.uns["proportions"]["method"] == "Tangram"
    assert "proportions_error" not in spots.obsm
    assert "proportions_fits" not in spots.obs
    assert spaf.pl.proportion(spots, "b").figure is not None


def test_proportions_that_cannot_be_taken_are_said():
    spots, truth = spots_with_truth()

    def fails(match: str, source: str | None = None) -> None:
        with pytest.raises(InputError, match=match):
            spaf.tl.take_proportions(spots, source)
        assert "proportions" not in spots.obsm

    fails("say with source .* none of 'flashdeconv', 'tangram_ct_pred'")
    fails("no table 'mine' of spots x types; its tables are: none", "mine")
    good = pd.DataFrame(truth, index=spots.obs_names, columns=list("abcd"))
    spots.obsm["mine"] = good - 0.5
    fails("'mine'. holds values below 0", "mine")
    spots.obsm["mine"] = good[["a"]]
    fails("'mine'. is no table of numbers of at least 2 types", "mine")
    spots.obsm["flashdeconv"] = spots.obsm["tangram_ct_pred"] = good
    fails("both 'flashdeconv' and 'tangram_ct_pred'")

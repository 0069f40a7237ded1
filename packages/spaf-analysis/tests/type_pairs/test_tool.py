import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spaf_analysis import InputError, pl, tl


def make(n_donors=8, *, seed=0, n_cells=200, clustered=0.6):
    """Cells of four types; A and B sit together in all donors, C and D together in those that are ill."""
    rng = np.random.default_rng(seed)
    parts = []
    for donor in range(n_donors):
        ill = donor < n_donors // 2
        for image in range(2):
            centres = rng.random((12, 2)) * 400
            xy, kind = [], []
            for name, with_pairs in (("A", True), ("B", True), ("C", ill), ("D", ill)):
                near = (
                    centres[rng.integers(6, size=n_cells // 4)]
                    if name in "AB"
                    else centres[6 + rng.integers(6, size=n_cells // 4)]
                )
                here = rng.random(n_cells // 4) < (clustered if with_pairs else 0)
                xy.append(np.where(here[:, None], near + rng.normal(0, 15, near.shape), rng.random(near.shape) * 400))
                kind += [name] * (n_cells // 4)
            obs = {"slide": f"s{donor}_{image}", "donor": f"d{donor}", "type": kind, "state": "ill" if ill else "well"}
            names = [f"{donor}_{image}_{cell}" for cell in range(len(kind))]
            part = ad.AnnData(sparse.csr_matrix((len(kind), 1)), obs=pd.DataFrame(obs, index=names))
            part.obsm["spatial"] = np.concatenate(xy)
            parts.append(part)
    return ad.concat(parts)


@pytest.fixture(scope="module")
def cells():
    return make()


def row(table, of, around):
    return table[(table["of"] == of) & (table["around"] == around)].iloc[0]


def test_types_that_sit_together_are_found(cells):
    adata = cells.copy()
    tl.type_pairs(adata, cell_type="type", donor="donor")
    found = adata.uns["type_pairs"]
    table = found["table"]
    assert found["test"] == "sign flips of donors"
    assert (found["n_donors"], found["n_images"], found["smallest_p"]) == (8, 16, 2 / 256)
    together = row(table, "A", "B")
    assert together["ratio"] > 1.5
    assert together["p_adjusted"] <= 0.05
    assert together["observed"] == row(table, "B", "A")["observed"]
    assert row(table, "A", "C")["ratio"] < 1
    assert len(table) == 16
    assert table["p"].is_monotonic_increasing
    assert len(found["donors"]) == 8 * 16


def test_conditions_are_compared_by_donor(cells):
    adata = cells.copy()
    tl.type_pairs(adata, cell_type="type", donor="donor", condition="state")
    found = adata.uns["type_pairs"]
    assert found["test"] == "permutation of donors"
    assert found["conditions"].tolist() == ["ill", "well"]
    assert found["smallest_p"] == pytest.approx(2 / 70)
    different = row(found["table"], "C", "D")
    assert different["first"] > 1.4 > 1.2 > different["second"]
    assert different["p_adjusted"] <= 0.05
    assert row(found["table"], "A", "B")["p_adjusted"] > 0.05
    assert pl.type_pairs(adata).get_title(loc="left") == "Types around types"


def test_one_slide_has_ratios_and_no_p(cells):
    adata = cells[cells.obs["slide"] == "s0_0"].copy()
    tl.type_pairs(adata, cell_type="type")
    found = adata.uns["type_pairs"]
    assert found["test"] == "none"
    assert "there is one donor" in found["reason"]
    assert found["table"]["p"].isna().all()
    assert found["table"]["ratio"].notna().all()
    assert len(pl.type_pairs(adata).images) == 1


def test_the_same_in_any_order_of_cells_and_by_nearest(cells):
    first, second = cells.copy(), cells[np.random.default_rng(0).permutation(cells.n_obs)].copy()
    for adata in (first, second):
        tl.type_pairs(adata, cell_type="type", donor="donor", n_neighbors=6)
    pd.testing.assert_frame_equal(first.uns["type_pairs"]["table"], second.uns["type_pairs"]["table"])
    assert row(first.uns["type_pairs"]["table"], "A", "B")["ratio"] > 1.2


def test_cells_of_two_donors_are_no_neighbours(cells):
    adata = cells.copy()
    tl.type_pairs(adata, cell_type="type", donor="donor")
    expected = adata.uns["type_pairs"]["table"]
    adata.obs["slide"] = adata.obs["slide"].str[-1]  # two names for all donors
    tl.type_pairs(adata, cell_type="type", donor="donor")
    pd.testing.assert_frame_equal(adata.uns["type_pairs"]["table"], expected)


def test_results_survive_a_file(cells, tmp_path):
    adata = cells.copy()
    tl.type_pairs(adata, cell_type="type", donor="donor", condition="state")
    adata.write_h5ad(tmp_path / "out.h5ad")
    assert pl.type_pairs(ad.read_h5ad(tmp_path / "out.h5ad")).figure is not None


@pytest.mark.parametrize("condition", [None, "random"])
def test_false_alarms_are_as_many_as_promised(condition):
    """Donors whose types lie at random, and donors that differ but not by condition."""
    rng = np.random.default_rng(5)
    alarms = []
    for seed in range(50):
        adata = make(10, seed=seed, n_cells=100, clustered=0.0 if condition is None else 0.5 * rng.random())
        which = rng.permutation(10) < 5
        adata.obs["random"] = np.where(which[adata.obs["donor"].str[1:].astype(int)], "x", "y")
        if condition is not None:  # what differs between ill and well is left out
            adata = adata[adata.obs["type"].isin(["A", "B"])].copy()
        tl.type_pairs(adata, cell_type="type", donor="donor", condition=condition, radius=40.0, min_expected=1.0)
        alarms += (adata.uns["type_pairs"]["table"]["p"] <= 0.05).tolist()
    assert 0.015 <= np.mean(alarms) <= 0.09


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cell_type": "none"}, "obs has no column 'none' \\(cell_type\\)"),
        ({"radius": 30.0, "n_neighbors": 5}, "give a radius or n_neighbors, not both"),
        ({"n_neighbors": 0}, "n_neighbors must be at least 1"),
        ({"condition": "state", "donor": None}, "name the column of donors too"),
        ({"radius": 0.5}, "radius 0.5 reaches no other cell for most cells"),
    ],
)
def test_wrong_options_are_one_sentence(cells, options, sentence):
    with pytest.raises(InputError, match=sentence):
        tl.type_pairs(cells.copy(), **{"cell_type": "type", "donor": "donor", **options})
    with pytest.raises(InputError, match="uns has no pairs of types 'type_pairs'"):
        pl.type_pairs(cells)


def test_with_one_donor_what_is_furthest_from_chance_comes_first():
    from spaf_analysis.type_pairs.tool import _most_certain_first

    table = pd.DataFrame(
        {
            "of": list("abc"), "observed": [0.0, 292.0, 21.0], "expected": [2.0, 19.4, 20.0],
            "ratio": [0.0, 15.1, 1.05], "statistic": np.nan, "p": np.nan,
        }
    )  # fmt: skip
    assert _most_certain_first(table)["of"].tolist() == ["b", "a", "c"]

"""Which types send and receive: shares of the statistic of a pair, and their null."""

import numpy as np
import pandas as pd
import pytest

from spaf_analysis import InputError, pl, tl
from spaf_analysis.ligrec.inputs import inputs_of
from spaf_analysis.ligrec.types import divided

from .conftest import PAIRS, make_tissue


@pytest.fixture(scope="module")
def found(planted):
    adata = planted.copy()
    tl.ligrec(adata, resource=PAIRS, cell_type="type", n_matched=20)
    tl.ligrec_types(adata)
    return adata


def test_types_divide_what_the_pair_has(found):
    rows, pairs = found.uns["ligrec_types"]["table"], found.uns["ligrec"]["table"]
    assert len(rows) == 9 * len(pairs)
    by_pair = rows.groupby(["ligand", "receptor"])[["observed", "expected"]].sum()
    expected = pairs.set_index(["ligand", "receptor"])[["observed", "expected"]]
    pd.testing.assert_frame_equal(by_pair, expected.loc[by_pair.index], rtol=1e-9)
    shares = rows.groupby(["ligand", "receptor"])["share"].sum()
    assert shares["G0", "G1"] == pytest.approx(1)


def test_excess_by_types_is_that_of_dense_sums_less_the_mean_over_permutations(found):
    """The twin: what is left of both genes in cells of two types, and whole cells dealt anew within strata."""
    inputs = inputs_of(found, cell_type="type", donor=None, bandwidth=30.0, tile=100.0)
    values, stratum = inputs.values.toarray()[:, 2:4], inputs.stratum
    raw = values.copy()
    for one in np.unique(stratum):
        values[stratum == one] -= values[stratum == one].mean(axis=0)
    distance = np.linalg.norm(inputs.coordinates[:, None] - inputs.coordinates[None], axis=2)
    weights = np.where(distance <= 90.0, np.exp(-0.5 * (distance / 30.0) ** 2), 0.0)
    np.fill_diagonal(weights, 0.0)
    has_type = (inputs.kind[:, None] == np.arange(3)).astype(float)

    def by_types(amounts):
        sent, received = (amounts[:, side, None] * has_type for side in range(2))
        return sent.T @ weights @ received

    rng = np.random.default_rng(0)
    sorted_cells = np.argsort(stratum, kind="stable")
    drawn = []
    for _ in range(150):
        order = np.empty(len(values), dtype=int)
        order[sorted_cells] = np.lexsort((rng.random(len(values)), stratum))
        drawn.append(by_types(values[order]))
    mean, deviation = np.mean(drawn, axis=0), np.std(drawn, axis=0)
    made = divided(inputs, [(2,)], [(3,)])
    np.testing.assert_allclose(made.observed[..., 0], by_types(raw), rtol=1e-9)
    z = (by_types(values) - mean) / deviation
    np.testing.assert_allclose(made.excess[..., 0] / deviation, z, atol=0.35)  # the mean of 150 scatters by .08
    assert np.abs(z - made.z[..., 0]).max() < 0.7  # of two ways the weaker counts


def test_p_is_no_smaller_than_it_says_where_types_decide_all():
    p = []
    for seed in range(2):
        adata = make_tissue(seed, planted=False)
        genes = adata.var_names
        pairs = pd.DataFrame([(a, b) for a in genes[2:12] for b in genes[12:22]], columns=["ligand", "receptor"])
        tl.ligrec(adata, resource=pairs, cell_type="type", n_matched=2)
        tl.ligrec_types(adata)
        p.append(adata.uns["ligrec_types"]["table"]["p"].dropna())
        assert adata.uns["ligrec_types"]["n_called"] <= 2
    assert 0.01 <= (pd.concat(p) <= 0.05).mean() <= 0.06


def test_the_figure_is_senders_by_receivers(found):
    rows = found.uns["ligrec_types"]["table"]
    assert set(rows.loc[rows["z"] > 3, "ligand"]) <= {"G0"}
    rows["called"] = rows["z"] > 1
    axes = pl.ligrec_types(found, "G0", "G1")
    rows = found.uns["ligrec_types"]["table"].query("ligand == 'G0' and receptor == 'G1'")
    drawn = axes.get_images()[0].get_array()
    for row in rows.itertuples():
        assert drawn[int(row.sender[1]), int(row.receiver[1])] == pytest.approx(row.z)
    assert len(axes.collections[0].get_offsets()) == rows["called"].sum() > 0
    with pytest.raises(InputError, match="has no pair G0 and G5"):
        pl.ligrec_types(found, "G0", "G5")


def test_without_types_none_sends(planted):
    adata = planted.copy()
    with pytest.raises(InputError, match="uns has no ligand-receptor pairs"):
        tl.ligrec_types(adata)
    tl.ligrec(adata, resource=PAIRS, n_matched=20)
    with pytest.raises(InputError, match="was made without types"):
        tl.ligrec_types(adata)

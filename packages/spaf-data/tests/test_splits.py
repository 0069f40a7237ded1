import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from spaf_data import InputError
from spaf_data.splits import split_regions, split_slides


@settings(max_examples=60, deadline=None)
@given(
    n_cells=st.integers(1, 400),
    fraction=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    gap=st.sampled_from([0.0, 10.0, 60.0]),
    axis=st.sampled_from(["longer", "x", "y"]),
    side=st.sampled_from(["high", "low"]),
    tile_size=st.sampled_from([None, 50.0, 200.0]),
    seed=st.integers(0, 9),
)
def test_no_validation_cell_is_within_the_gap_of_a_training_cell(
    n_cells: int, fraction: float, gap: float, axis: str, side: str, tile_size: float | None, seed: int
) -> None:
    # On a lattice, so that distances equal to the gap and cells level with the cut occur.
    points = np.round(np.random.default_rng(seed).random((n_cells, 2)) * [600.0, 400.0], -1)
    options = {"validation_fraction": fraction, "gap": gap, "axis": axis, "side": side, "tile_size": tile_size}
    try:
        split = split_regions(points, seed=seed, **options)
    except InputError as error:
        assert "no cell is left for training" in str(error)  # noqa: PT017
        assume(False)
    train, validation = points[split == "train"], points[split == "validation"]
    assert set(split) <= {"train", "validation", "gap"}
    if round(fraction * n_cells) == 0:
        assert (split == "train").all()
        return
    distances, _ = cKDTree(train).query(validation)
    assert distances.min() > gap
    # The gap holds no cell that it need not.
    in_gap = points[split == "gap"]
    if len(in_gap):
        assert cKDTree(validation).query(in_gap)[0].max() <= gap
    order = np.random.default_rng(1).permutation(n_cells)
    np.testing.assert_array_equal(split_regions(points[order], seed=seed, **options), split[order])


def test_a_strip_holds_the_share_of_cells_at_the_end_asked_for() -> None:
    points = np.random.default_rng(0).random((2000, 2)) * [400.0, 900.0]
    split = split_regions(points, validation_fraction=0.25, gap=50.0)
    assert (split == "validation").sum() == 500
    assert points[split == "validation", 1].min() > points[split == "gap", 1].max()
    assert points[split == "train", 1].max() < points[split == "validation", 1].min() - 40.0
    low = split_regions(points, validation_fraction=0.25, gap=50.0, axis="x", side="low")
    assert points[low == "validation", 0].max() < points[low == "train", 0].min()


def test_tiles_hold_about_the_share_of_cells_all_over_the_slide() -> None:
    points = np.random.default_rng(0).random((20_000, 2)) * 5000.0
    split = split_regions(points, validation_fraction=0.2, gap=50.0, tile_size=500.0, seed=1)
    assert (split == "validation").mean() == pytest.approx(0.2, abs=0.01)
    assert np.ptp(points[split == "validation"], axis=0).min() > 2500.0
    other = split_regions(points, validation_fraction=0.2, gap=50.0, tile_size=500.0, seed=2)
    assert not np.array_equal(split, other)


def test_whole_slides() -> None:
    names = [f"slide{i}" for i in range(10)]
    split = split_slides(names, validation_fraction=0.3, seed=5)
    assert sorted(split.values()).count("validation") == 3
    assert split_slides(names[::-1] * 2, validation_fraction=0.3, seed=5) == split
    assert list(split_slides(["a", "b"], validation_fraction=0.1).values()).count("validation") == 1
    assert split_slides(["a"], validation_fraction=0.0) == {"a": "train"}
    with pytest.raises(InputError, match="no slide is left"):
        split_slides(["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"gap": -1.0}, "gap"),
        ({"gap": float("nan")}, "gap"),
        ({"axis": "z"}, "longer, x, y"),
        ({"side": "left"}, "high, low"),
        ({"tile_size": 0.0}, "tile_size"),
        ({"gap": 1e4}, "no cell is left for training"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_regions(np.random.default_rng(0).random((50, 2)) * 300, **options)  # type: ignore[arg-type]

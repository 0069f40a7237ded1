import dataclasses

import pytest

from spaf_data import BuildOptions, Distances, InputError


def test_a_larger_radius_takes_the_negatives_along() -> None:
    assert Distances() == Distances(positive=30.0, hard_min=80.0, hard_max=150.0, easy_min=150.0)
    assert Distances(positive=10.0).hard_min == 80.0
    visium = Distances(positive=120.0)
    assert (visium.hard_min, visium.hard_max, visium.easy_min) == (320.0, 600.0, 600.0)
    assert Distances(positive=120.0, hard_min=200.0).hard_max == 600.0
    assert Distances(hard_max=200.0).easy_min == 200.0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"positive": 0.0}, "radius of neighbours must be above 0 um"),
        ({"positive": float("inf")}, "radius of neighbours must be above 0 um"),
        ({"positive": float("nan")}, "radius of neighbours must be above 0 um"),
        (
            {"positive": 110.0, "hard_min": 80.0},
            r"hard_min must be above the radius of neighbours \(110 um\)",
        ),
        ({"hard_min": 200.0}, r"hard_max must be above hard_min \(200 um\), not 150 um"),
        ({"hard_max": float("nan")}, "hard_max must be a finite number"),
        ({"easy_min": 70.0}, r"easy_min must be at least hard_min \(80 um\), not 70 um"),
    ],
)
def test_distances_that_contradict_each_other_are_one_sentence(given: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Distances(**given)


def test_changed_distances_are_checked_anew() -> None:
    assert Distances().changed(hard_max=300.0) == Distances(hard_max=300.0, easy_min=300.0)
    assert Distances(positive=120.0).changed() == Distances(positive=120.0)
    with pytest.raises(InputError, match=r"hard_min must be above the radius of neighbours \(120 um\)"):
        Distances(positive=120.0).changed(hard_min=80.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Distances().positive = 10.0  # type: ignore[misc]


def test_manifests_of_before_have_the_distances_they_were_trained_with() -> None:
    assert Distances.of_manifest(None, 30.0) == Distances()
    assert Distances.of_manifest(None, 50.0) == Distances(positive=50.0, hard_min=80.0, hard_max=150.0, easy_min=150.0)
    assert Distances.of_manifest(None, 120.0) == Distances(positive=120.0)  # 80 um would be neighbours
    stored = {"positive": 50.0, "hard_min": 90.0, "hard_max": 100.0, "easy_min": 200.0}
    assert Distances.of_manifest(stored, 30.0) == Distances(**stored)


def test_builds_take_distances_and_refuse_contradictory_ones() -> None:
    assert BuildOptions(radius=120.0, gap=200.0).distances == Distances(positive=120.0)
    assert BuildOptions(hard_min=60.0).distances.hard_min == 60.0
    with pytest.raises(InputError, match="hard_min must be above the radius"):
        BuildOptions(radius=120.0, gap=200.0, hard_min=80.0)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
@pytest.mark.parametrize("name", ["hard_min", "hard_max", "easy_min"])
def test_distances_are_finite(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be a finite number of um, not -?(inf|nan)"):
        Distances(**{name: value})
    with pytest.raises(InputError, match=f"{name} must be a finite number"):
        BuildOptions(**{name: value})

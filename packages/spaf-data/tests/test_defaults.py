"""One default for one thing, whether a function, the options of a build or a command is asked."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import spaf_data
from spaf_data import cli, defaults
from spaf_data.options import BuildOptions, ReadOptions
from spaf_data.simulate.recipe import Simulation


def keywords(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


# What a function calls an option of a build, where it calls it otherwise.
_OTHER_NAMES = {"colocalization_radius": "radius", "colocalization_min_transcripts": "min_transcripts"}


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (spaf_data.read_transcripts, ["min_qv"]),
        (spaf_data.read_counts, ["min_transcripts"]),
        (spaf_data.bin_transcripts, ["min_transcripts"]),
        (spaf_data.colocalize, ["colocalization_radius", "colocalization_min_transcripts"]),
        (spaf_data.robustness, ["colocalization_radius", "colocalization_min_transcripts"]),
        (spaf_data.proximity_graph, ["colocalization_radius"]),
        (spaf_data.positive_pairs, ["radius"]),
        (spaf_data.spatial_neighbors, ["radius", "check_units"]),
        (spaf_data.split_regions, ["validation_fraction"]),
        (spaf_data.split_slides, ["validation_fraction"]),
        (spaf_data.write_corpus, ["block_cells"]),
    ],
)
def test_a_function_has_the_default_of_a_build(function: Callable[..., Any], options: list[str]) -> None:
    given = keywords(function)
    for option in options:
        assert given[_OTHER_NAMES.get(option, option)] == getattr(BuildOptions(), option), option


def test_a_command_has_the_defaults_of_what_it_calls() -> None:
    build = keywords(cli.build)
    for kind in (BuildOptions, ReadOptions):
        for field in fields(kind):
            if field.name in build:
                # An option that may be repeated is None where nobody gave it.
                assert (build[field.name] or None) == (getattr(kind(), field.name) or None), field.name
    assert build["jobs"] == keywords(spaf_data.build_corpus)["jobs"] == defaults.JOBS
    assert keywords(cli.simulate)["depth"] == keywords(spaf_data.simulate_bundle)["depth"]


def test_a_simulation_has_the_defaults_of_its_recipe() -> None:
    recipe = Simulation(n_cells=1, n_genes=40, seed=0)
    given = {name: value for name, value in keywords(spaf_data.simulate_bundle).items() if name != "progress"}
    assert given == {name: getattr(recipe, name) for name in given}


def test_distances_of_pairs_follow_the_radius() -> None:
    distances = BuildOptions().distances
    assert distances == spaf_data.Distances()
    near, far = keywords(spaf_data.hard_negatives), keywords(spaf_data.easy_negatives)
    assert (near["inner"], near["outer"], far["distance"]) == (
        distances.hard_min,
        distances.hard_max,
        distances.easy_min,
    )

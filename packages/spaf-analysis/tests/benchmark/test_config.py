"""What is wrong is said in one sentence before any work."""

import sys

import pytest
from scipy import sparse

from spaf_analysis import cli
from spaf_analysis.benchmark import read_benchmark, run_benchmark
from spaf_analysis.benchmark.base import TASKS


@pytest.fixture
def refused(monkeypatch, capsys, folder):
    """Call the command line with a changed configuration, and return what it says."""

    def call(*changes):
        text = (folder / "benchmark.toml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (folder / "changed.toml").write_text(text)
        monkeypatch.setattr(
            sys, "argv", ["spaf-analysis", "benchmark", str(folder / "changed.toml"), "-o", str(folder / "out")]
        )  # fmt: skip
        for task in TASKS.values():
            monkeypatch.setattr(task, "judge", None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out) == (2, "")
        assert printed.err.count("\n") == 1
        assert not (folder / "out").exists()
        return printed.err

    return call


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "[tasks.identity]",
            "[tasks.identify]",
            "there is no task 'identify'; the tasks are: annotation, attention",
        ),
        ("[tasks.identity]", "[tasks.identity]\nradius = 1", "tasks.identity.radius is not an option"),
        ('label = "kind"', 'label = "type"', "data set 'tissue': obs has no column 'type' (label); it has: kind"),
        ('label = "kind"', "", "no data set can be asked any of the tasks (identity: the data set names no column"),
        ('label = "kind"', 'labels = "kind"', "data.tissue.labels is not an option; did you mean label"),
        ('path = "cells.h5ad"', 'path = "none.h5ad"', "there is no file"),
        ('path = "cells.h5ad"', 'path = "benchmark.toml"', "benchmark.toml cannot be read as an h5ad file"),
        ('path = "cells.h5ad"', "", "a data set has either a path or the name of a public dataset"),
        ('path = "cells.h5ad"', 'dataset = "mine"', "no public data set 'mine'; there are: xenium_breast_window"),
        ('key = "X_noise"', 'key = "X_none"', "method 'noise': obsm of data set 'tissue' has no embedding 'X_none'"),
        ('key = "X_noise"', 'model = "none"', "method 'noise': there is no model directory at"),
        ('key = "X_noise"', 'fit = "all"', "method 'noise': fit must be one of tissue, neighbours, not 'all'"),
        ('key = "X_noise"', 'keys = "a"', "methods.noise.keys is not an option; the options there are: model"),
        ('key = "X_noise"', "key = 3", "methods.noise.key must be a text, not 3"),
        ('key = "X_noise"', 'key = "X_good"', "methods 'good' and 'noise' are the same: key 'X_good'"),
        ('key = "X_noise"', "", "method 'noise' needs exactly one of the options model"),
        ("[methods.noise]", "[methods.good]", "cannot be read as TOML"),
        ("replicates = 20", "replicates = 0", "replicates must be a whole number of at least 2, not 0"),
        ("replicates = 20", "seeds = 20", "seeds is not an option; the options there are: data, methods"),
        ("spot = 60", "spot = 0", "spot must be above 0 um, not 0"),
        ("spot = 60", 'parts = "donors"', "parts are donors, and no column of donors is named (donor)"),
        ("spot = 60", 'parts = "halves"', "data.tissue.parts must be one of strips, thirds, tiles, slides, donors"),
        ("spot = 60", 'without = ["k0", "k1"]', "fewer than 2 values beside those of without"),
        ("[methods.noise]", '[methods."log counts"]', "method 'log counts' has the name of a baseline"),
    ],
)
def test_wrong_configurations_are_one_sentence(refused, old, new, sentence):
    assert sentence in refused((old, new))


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_wrong_data_are_one_sentence(refused, folder, cells):
    twice = cells.copy()
    twice.obs_names = ["a", "a", *twice.obs_names[2:]]
    twice.write_h5ad(folder / "twice.h5ad")
    logs = cells.copy()
    logs.X = sparse.csr_matrix(logs.X).log1p()
    logs.write_h5ad(folder / "logs.h5ad")
    assert "1 cells have the name of another one, the first is 'a'" in refused(("cells.h5ad", "twice.h5ad"))
    assert "look log-normalised" in refused(("cells.h5ad", "logs.h5ad"))


def test_a_folder_of_something_else_is_left_alone(folder):
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("words")
    with pytest.raises(ValueError, match="holds something else than a benchmark"):
        run_benchmark(read_benchmark(folder / "benchmark.toml"), folder / "out")
    assert [path.name for path in (folder / "out").iterdir()] == ["mine.txt"]


def test_without_tasks_all_are_asked_and_what_lacks_is_said(folder):
    toml = folder / "benchmark.toml"
    toml.write_text(toml.read_text().partition("[tasks")[0].replace('region = "region"', ""))
    config = read_benchmark(toml)
    assert {task.name for task in config.tasks} >= {
        "annotation", "cell-pairs", "deconvolution", "identity", "integration", "niches"
    }  # fmt: skip
    from spaf_analysis.benchmark.config import lacking

    (niches,) = [task for task in config.tasks if task.name == "niches"]
    assert lacking(niches, config.data[0]) == "the data set names no column of obs as region"

import sys

import pytest

from spaf_data import InputError, cli, simulate_bundle, spatial_neighbors
from spaf_data._console import progress


@pytest.fixture(scope="module")
def bracketed(tmp_path_factory):
    """A build whose slide and tissue have names that would be markup."""
    folder = tmp_path_factory.mktemp("names")
    simulate_bundle(folder / "bundle", n_cells=300, n_genes=40, seed=0)
    named = ["--slide", "s[tumour]1", "--tissue", "Breast [/left]"]
    words = ["build", folder / "bundle", "-o", folder / "built", *named]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["spaf-data", *map(str, words)])
        cli.app(standalone_mode=False)
    return folder / "built"


def test_names_in_brackets_are_shown_as_they_are(bracketed, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["spaf-data", "info", str(bracketed)])
    cli.app(standalone_mode=False)
    shown = capsys.readouterr().out
    assert "s[tumour]1" in shown
    assert "Breast [/left]" in shown


def test_progress_takes_any_name(capsys):
    with progress() as report:
        report("s[tumour]1", "reading [/left]", 0.5)


@pytest.mark.parametrize("key", ["", "a/b"])
def test_keys_that_an_h5ad_cannot_hold_are_refused_before_the_work(key):
    with pytest.raises(InputError, match="key_added is the name of a key"):
        spatial_neighbors(None, key_added=key)

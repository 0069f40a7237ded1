import os
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from spaf_model import InputError, check_key, check_output, replace_file
from spaf_model._console import plain_console, progress_bar
from spaf_model._h5ad import write_copy


def test_places_that_can_be_written(tmp_path):
    check_output(tmp_path / "new" / "deep" / "file.h5ad", None)
    (tmp_path / "old.h5ad").touch()
    check_output(tmp_path / "old.h5ad")
    check_output(tmp_path, folder=True)
    check_output(Path("here.h5ad"))


@pytest.mark.parametrize(
    ("place", "folder", "sentence"),
    [
        ("folder", False, "folder is a folder; give the name of the file"),
        ("file", True, "file is a file; give the name of a folder"),
        ("file/below.h5ad", False, "below.h5ad cannot be written: .*file is a file, not a folder"),
        ("file/below/deep.h5ad", False, "deep.h5ad cannot be written: .*file is a file, not a folder"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, place, folder, sentence):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=sentence):
        check_output(tmp_path / place, folder=folder)


def test_a_folder_that_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the user of a test may be allowed everything
    with pytest.raises(InputError, match="nothing may be written to"):
        check_output(tmp_path / "x.h5ad")


@pytest.mark.parametrize("key", ["", "a/b", "/", ".", "..", "a\0b"])
def test_keys_that_an_h5ad_cannot_hold(key):
    with pytest.raises(InputError, match="--key is the name of a key"):
        check_key(key, "--key")


@pytest.mark.parametrize("key", ["X_SpaF", "my key", "a.b", "µ"])
def test_keys_that_it_can(key):
    check_key(key)


def test_a_model_is_not_asked_for_a_key_that_cannot_be_stored(model, adata):
    before = adata.copy()
    with pytest.raises(InputError, match="key_added"):
        model.embed(adata, key_added="a/b")
    with pytest.raises(InputError, match="key_added"):
        model.predict_colocalization(adata, 0.5, key_added="")
    assert list(adata.obsm) == list(before.obsm)


def test_a_file_with_obsm_as_one_table_gets_its_result_too(adata, tmp_path):
    """As anndata wrote it before version 0.7."""
    adata.write_h5ad(tmp_path / "old.h5ad")
    places = np.arange(2.0 * adata.n_obs).reshape(-1, 2)
    with h5py.File(tmp_path / "old.h5ad", "r+") as file:
        del file["obsm"]
        file["obsm"] = np.array([(row,) for row in places], dtype=[("spatial", float, (2,))])
    result = np.ones((adata.n_obs, 3), np.float32)
    write_copy(tmp_path / "old.h5ad", tmp_path / "new.h5ad", {"obsm": {"X_SpaF": result}})
    written = anndata.read_h5ad(tmp_path / "new.h5ad")
    np.testing.assert_array_equal(written.obsm["spatial"], places)
    np.testing.assert_array_equal(written.obsm["X_SpaF"], result)


def test_brackets_in_names_are_text(capsys):
    plain_console().print("Breast [/left] s[tumour]1", soft_wrap=True)
    assert capsys.readouterr().out == "Breast [/left] s[tumour]1\n"
    with progress_bar("s[tumour]1 [/left]", 2, shown=True) as advance:
        assert advance is None or advance(1) is None


@pytest.mark.parametrize("command", ["embed", "colocalization", "pairs", "attention"])
def test_commands_look_at_their_output_before_the_model(run, tmp_path, command, capsys):
    pairs = ["--pairs", tmp_path / "none.csv"] if command in ("pairs", "attention") else []
    words = [command, tmp_path / "none.h5ad", "--model", tmp_path / "none", *pairs]
    assert run(*words, "-o", tmp_path) == 2
    assert "is a folder; give the name of the file" in capsys.readouterr().err
    if not pairs:
        assert run(*words, "-o", tmp_path / "x.h5ad", "--key", "a/b") == 2
        assert "--key-added is the name of a key" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_coordinates_are_not_replaced():
    with pytest.raises(InputError, match="cannot be 'spatial': the coordinates"):
        check_key("spatial")


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        check_output(tmp_path / "pipe")
    with pytest.raises(InputError, match="too long for the name of a file"):
        check_output(tmp_path / ("x" * 300))


def test_a_link_stays_a_link_and_what_it_leads_to_is_written(tmp_path, model):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "there" / "file.txt")
    replace_file(tmp_path / "link.txt", lambda path: path.write_text("new"))
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "there" / "file.txt").read_text() == "new"
    (tmp_path / "model").symlink_to(tmp_path / "there" / "model")
    for _ in range(2):
        model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model").is_symlink()
    assert sorted(file.name for file in (tmp_path / "there").iterdir()) == ["file.txt", "model"]
    long = tmp_path / ("µ" * 120)
    replace_file(long, lambda path: path.write_text("new"))
    assert long.read_text() == "new"


def test_a_model_is_not_saved_below_a_file(tmp_path, model):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file, not a folder"):
        model.save_pretrained(tmp_path / "file" / "model")

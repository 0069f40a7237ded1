import json
import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from spaf_model import InputError, SpatialFormer, fetch_model, load_model, publish_model
from spaf_model.cli import main
from spaf_model.published_models import MANIFEST_FILE, PublishedFile

NAMED = "breast@2026-11"


class Server:
    """A web server of a folder on the loopback address, which notes what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(handler, *arguments) -> None:
                self.asked.append(handler.path)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_port}/models"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def saved(model: SpatialFormer, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "labels.json").write_text("{}")  # what a fine-tuning leaves is part of a model
    return tmp_path / "model"


@pytest.fixture
def server(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    publish_model(saved, NAMED, tmp_path / "www" / "models")
    monkeypatch.setattr("spaf_model.fetching.default_cache", lambda: tmp_path / "cache")
    server = Server(tmp_path / "www")
    yield server
    server.stop()


@pytest.fixture
def published(server: Server) -> Path:
    return server.folder / "models" / "breast" / "2026-11"


def left_over(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.name.startswith(".") or "partial" in path.name]


def test_a_fetched_model_is_the_one_that_was_published_and_needs_no_server_again(model, server, tmp_path) -> None:
    fetched = load_model(NAMED, base_url=server.url)
    assert fetched.source == NAMED
    for name, tensor in model.network.state_dict().items():
        np.testing.assert_array_equal(fetched.network.state_dict()[name], tensor)
    n_asked = len(server.asked)
    server.stop()
    assert SpatialFormer.from_pretrained(NAMED).config == model.config
    assert fetch_model(NAMED, server.url) == tmp_path / "cache" / "breast" / "2026-11"
    assert (fetch_model(NAMED) / "labels.json").is_file()
    assert len(server.asked) == n_asked
    assert not left_over(tmp_path)


def test_a_folder_of_that_name_goes_first(model, server, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path / "model", NAMED)
    assert load_model(NAMED).config == model.config
    assert not server.asked


def test_a_file_that_is_not_the_published_one_is_refused(server, published, tmp_path) -> None:
    weights = published / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="model.safetensors is not the file that was published: its SHA-256"):
        load_model(NAMED, base_url=server.url)
    weights.write_bytes(content[:100])
    with pytest.raises(InputError, match="model.safetensors is not the file that was published"):
        fetch_model(NAMED, server.url)
    weights.unlink()
    with pytest.raises(InputError, match="model.safetensors cannot be fetched: the server says 404"):
        fetch_model(NAMED, server.url)
    assert not (tmp_path / "cache" / "breast" / "2026-11").exists()
    assert not left_over(tmp_path)


def test_a_manifest_can_be_pinned(server, published) -> None:
    of_manifest = PublishedFile.of(published / MANIFEST_FILE).sha256
    with pytest.raises(InputError, match="manifest.json is not the file that was published"):
        fetch_model(NAMED, server.url, sha256="0" * 64)
    folder = fetch_model(NAMED, server.url, sha256=of_manifest.upper())
    with pytest.raises(InputError, match=f"a manifest of SHA-256 {of_manifest}"):
        fetch_model(NAMED, server.url, sha256="0" * 64)
    assert fetch_model(NAMED, sha256=of_manifest) == folder


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"files": {"../../evil": {"size": 1, "sha256": "0"}}}, "names the file '../../evil'"),
        ({"files": {".hidden": {"size": 1, "sha256": "0"}}}, "names the file '.hidden'"),
        ({"files": {}}, "has no config.json, vocabulary.json, model.safetensors"),
        ({"files": [1]}, "is no manifest of a model"),
        ({"format_version": 99}, "format version 99"),
        ({"name": "lung"}, "is the manifest of lung@2026-11, not of breast@2026-11"),
    ],
)
def test_nothing_of_a_manifest_is_believed(server, published, tmp_path, changed, sentence) -> None:
    content = json.loads((published / MANIFEST_FILE).read_text())
    (published / MANIFEST_FILE).write_text(json.dumps(content | changed))
    with pytest.raises(InputError, match=sentence) as error:
        fetch_model(NAMED, server.url)
    assert server.url in str(error.value)
    assert str(tmp_path) not in str(error.value)
    assert not left_over(tmp_path)


def test_offline_says_what_is_missing(server, tmp_path) -> None:
    with pytest.raises(InputError, match="breast@2026-11 has not been fetched .*spaf-model fetch breast@2026-11"):
        load_model(NAMED)
    server.stop()
    with pytest.raises(InputError, match="manifest.json cannot be fetched: there is no connection to the server"):
        load_model(NAMED, base_url=server.url)
    with pytest.raises(InputError, match="base_url is 'ftp://x', and must begin with http"):
        load_model(NAMED, base_url="ftp://x")
    with pytest.raises(InputError, match="'starter' is no NAME@REVISION"):
        load_model("starter", base_url=server.url)


def test_a_damaged_cache_is_fetched_again(server, tmp_path) -> None:
    folder = fetch_model(NAMED, server.url)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match="breast@2026-11 is damaged"):
        load_model(NAMED)
    assert load_model(NAMED, base_url=server.url).source == NAMED
    (folder / MANIFEST_FILE).write_text("{")
    assert fetch_model(NAMED, server.url) == folder
    assert load_model(NAMED).source == NAMED


def test_many_fetch_at_once(server, tmp_path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: fetch_model(NAMED, server.url), range(8)))
    assert len(set(folders)) == 1
    load_model(NAMED)
    assert not left_over(tmp_path)


def test_what_cannot_be_published(saved, tmp_path) -> None:
    with pytest.raises(InputError, match="'breast' is no NAME@REVISION"):
        publish_model(saved, "breast", tmp_path / "www")
    with pytest.raises(InputError, match="no NAME@REVISION"):
        publish_model(saved, "../breast@1", tmp_path / "www")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a model directory"):
        publish_model(tmp_path / "empty", NAMED, tmp_path / "www")
    assert not (tmp_path / "www").exists()
    publish_model(saved, NAMED, tmp_path / "www")
    with pytest.raises(InputError, match="exists, and a revision never changes"):
        publish_model(saved, NAMED, tmp_path / "www")
    (saved / "my notes.txt").write_text("")
    with pytest.raises(InputError, match="holds 'my notes.txt', which cannot be published"):
        publish_model(saved, "breast@2", tmp_path / "www")
    assert [path.name for path in (tmp_path / "www" / "breast").iterdir()] == ["2026-11"]


def test_the_commands(saved, server, tmp_path, monkeypatch, capsys, caplog) -> None:
    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["spaf-model", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code in (None, 0)

    with caplog.at_level(logging.INFO):
        run("publish", str(saved), "breast@2", "--to", str(tmp_path / "www" / "models"))
    of_manifest = caplog.records[-1].getMessage().split()[-1]
    run("fetch", "breast@2", "--base-url", server.url, "--sha256", of_manifest)
    assert capsys.readouterr().out.strip() == str(tmp_path / "cache" / "breast" / "2")
    run("info", "breast@2", "--json")
    assert json.loads(capsys.readouterr().out)["family"] == "spatialformer"

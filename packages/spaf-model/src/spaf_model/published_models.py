"""Models that a place on the web gives, ``NAME@REVISION``: how such a place is made, and its manifest.

A place is a folder that any HTTP server can give, ``BASE_URL/NAME/REVISION/`` with the files of a model directory and
``manifest.json``, which has the size and SHA-256 of each. A revision never changes: what is new has a new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spaf_model._files import read_json_object
from spaf_model.errors import InputError
from spaf_model.model_directory import CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE, read_model_directory

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1
# Neither of the two can be a path, or hidden; both are folders.
_PLAIN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_NAMED = re.compile(rf"({_PLAIN})@({_PLAIN})")


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """Size in bytes and SHA-256 of one file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> PublishedFile:
        """Look at a file."""
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a revision of a model consists of."""

    name: str
    revision: str
    files: Mapping[str, PublishedFile]

    @classmethod
    def read(cls, path: Path, *, source: str) -> Manifest:
        """Read a manifest, of which nothing is believed.

        Raises
        ------
        InputError
            If it is no manifest, names a file that is none of one folder, or lacks one that every model has.
        """
        content = read_json_object(path, newest=FORMAT_VERSION)
        try:
            files = {
                name: PublishedFile(int(one["size"]), str(one["sha256"])) for name, one in content["files"].items()
            }
            manifest = cls(str(content["name"]), str(content["revision"]), files)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{source} is no manifest of a model: {error!r}.") from error
        bad = [name for name in files if not re.fullmatch(_PLAIN, name) or name == MANIFEST_FILE]
        if bad:
            raise InputError(f"{source} is no manifest of a model: it names the file {bad[0]!r}.")
        missing = [name for name in (CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE) if name not in files]
        if missing:
            raise InputError(f"{source} is no manifest of a model: it has no {', '.join(missing)}.")
        return manifest

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        files = {name: dataclasses.asdict(one) for name, one in sorted(self.files.items())}
        return {"format_version": FORMAT_VERSION, "name": self.name, "revision": self.revision, "files": files}


def name_and_revision(model: str | Path) -> tuple[str, str] | None:
    """Return the two parts of ``NAME@REVISION``, or None where a model is not named so."""
    found = _NAMED.fullmatch(model) if isinstance(model, str) else None
    return None if found is None else (found[1], found[2])


def publish_model(model_dir: str | Path, model: str, place: str | Path) -> Path:
    """Put a model directory where a web server gives it to ``from_pretrained(model, base_url=..)``.

    Parameters
    ----------
    model_dir
        The model directory. All of its files are given, those of a fine-tuning too.
    model
        ``NAME@REVISION``. A revision never changes, so it must be new.
    place
        Folder that is (or will be copied to) what `base_url` gives.

    Returns
    -------
    Path
        ``place/NAME/REVISION``, with the files and ``manifest.json``.

    Raises
    ------
    InputError
        If it is no model directory, the name is none, or there is such a revision.

    Examples
    --------
    ::

        from spaf_model import load_model, publish_model

        publish_model("runs/own/model", "breast@2026-11", "www/models")
        load_model("breast@2026-11", base_url="https://lab.example/models")
    """
    parts = name_and_revision(model)
    if parts is None:
        raise InputError(f"{model!r} is no NAME@REVISION of letters, digits, '.', '_' and '-'.")
    source = Path(model_dir)
    read_model_directory(source)  # what cannot be loaded is of use to nobody
    files = [file for file in sorted(source.iterdir()) if file.is_file() and not file.name.startswith(".")]
    odd = [file.name for file in files if not re.fullmatch(_PLAIN, file.name) or file.name == MANIFEST_FILE]
    if odd:
        raise InputError(f"{source} holds {odd[0]!r}, which cannot be published; remove or rename it.")
    target = Path(place).joinpath(*parts)
    if target.exists():
        raise InputError(f"{target} exists, and a revision never changes: publish under a new one.")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        for file in files:
            shutil.copyfile(file, staging / file.name)
        manifest = Manifest(*parts, {file.name: PublishedFile.of(staging / file.name) for file in files})
        (staging / MANIFEST_FILE).write_text(json.dumps(manifest.as_dict(), indent=2) + "\n", "utf-8")
        staging.chmod(0o755)  # a server runs as somebody else
        os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target

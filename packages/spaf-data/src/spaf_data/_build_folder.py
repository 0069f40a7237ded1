"""The folder of a build: finished or not there.

A build works in a hidden folder beside the wanted one and renames it at the end. One that was killed, or that failed
after slides were finished, is taken up again by the same command.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spaf_data._record import write_text
from spaf_data.errors import InputError
from spaf_data.folders import replace_folder

COMMAND = "spaf-data build"
RECORD = "build.json"


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise an `InputError` where `out` is taken by something else than a build that may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_build(out):
        raise InputError(f"{out} is not empty and not a build of spaf-data; give another folder with --out")
    if not overwrite:
        raise InputError(f"{out} holds a build already; replace it with --overwrite or give another folder with --out")


def is_build(path: Path) -> bool:
    """Whether a folder is a finished build."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("command") == COMMAND


def fingerprint(path: Path) -> list[list[Any]]:
    """Return name, size and time of the files of a bundle: enough to see that a killed build had the same input."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [
        [str(file.relative_to(path.parent)), file.stat().st_size, file.stat().st_mtime_ns]
        for file in files
        if file.is_file()
    ]


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `out` that takes its place at the end.

    A folder that a killed build left is used again, and so are its finished slides where the plan of a slide is still
    the same. When the build fails, finished slides stay for the next one; with none of them nothing stays.
    """
    out = Path(os.path.realpath(out))  # a link stays a link
    folder = out.parent / f".{out.name}.unfinished"
    slides = folder / "slides"
    slides.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except Exception as error:
        n_finished = len(list(slides.glob("*.json")))
        if n_finished:
            error.add_note(f"the same command takes up {n_finished} finished slides, which are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    replace_folder(folder, out)


def finished_slide(folder: Path, slide: str, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Return the summary of a slide that an earlier build of this plan finished; None where there is none."""
    record = read_json(_slide_record(folder, slide))
    if record is None or record.get("plan") != json.loads(json.dumps(plan)):
        return None
    return dict(record["summary"])


def finish_slide(folder: Path, slide: str, plan: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write down that the table of a slide is finished."""
    write_json(_slide_record(folder, slide), {"plan": plan, "summary": summary})


def begin_slide(folder: Path, slide: str) -> None:
    """Forget what an earlier build of another plan finished of a slide."""
    _slide_record(folder, slide).unlink(missing_ok=True)


def keep_slides(folder: Path, files: set[str]) -> None:
    """Remove all from the folder of slides but these files: records, and slides that are no longer of the build."""
    for file in (folder / "slides").iterdir():
        if file.name not in files:
            file.unlink()


def _slide_record(folder: Path, slide: str) -> Path:
    return folder / "slides" / f"{slide}.json"


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the contents of a JSON object; None where there is no such file or it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    write_text(file, json.dumps(content, indent=2) + "\n")

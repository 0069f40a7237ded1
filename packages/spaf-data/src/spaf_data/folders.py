"""Folders that results go to: written by one process at a time, and replaced so that no interrupt loses them."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from spaf_data.errors import InputError

logger = logging.getLogger(__name__)

_BUSY = (errno.EACCES, errno.EAGAIN)
# What this process writes to: a lock of its own does not stop it, and opening its file again would end it.
_held: dict[Path, dict[str, Any]] = {}
_holding = threading.Lock()


@contextmanager
def claim(out: str | Path, command: str) -> Iterator[None]:
    """Make sure that no other process writes to a folder, as long as the context lasts.

    The claim is a lock of the operating system on ``.NAME.lock`` beside the folder, which names command, process, host
    and start of its holder. It ends with the process, however that ends, so a file that a killed one left is no claim.

    Parameters
    ----------
    out
        The folder; it need not be there.
    command
        What writes to it, for the sentence that another process gets.

    Raises
    ------
    InputError
        If another process, or another thread of this one, has claimed the folder; it is named.
    """
    lock = _lock_file(Path(out))
    holder = {
        "command": command,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    with _holding:
        if lock in _held:
            raise InputError(_busy(out, _held[lock]))
        made = _make_parents(lock)
        file = _locked(lock, out)
        _held[lock] = holder
    try:
        if file is not None:
            file.truncate(0)
            file.write(json.dumps(holder) + "\n")
            file.flush()
        yield
    finally:
        with _holding:
            del _held[lock]
            if file is not None:
                # While the lock is held, so that no other process locks a file that is about to go.
                lock.unlink(missing_ok=True)
                file.close()
            for folder in made:
                with suppress(OSError):  # it holds something now
                    folder.rmdir()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill: at the end it takes the place of `path`; after an error `path` is as it was.

    A process that is killed while the one is renamed and the other not yet leaves both; see `restore`.
    """
    path = _itself(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    restore(path)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        new = staging / "new"
        new.mkdir()
        yield new
        replace_folder(new, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Rename a folder to `path`; what is there is removed after that, and is back after an error or an interrupt."""
    path = _itself(path)
    restore(path)
    earlier = _earlier(path)
    try:
        if path.exists():
            os.replace(path, earlier)
        os.replace(new, path)
    except BaseException:
        if earlier.exists() and not path.exists():
            os.replace(earlier, path)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def restore(path: Path) -> None:
    """Undo, or finish, what a killed process began: put back a folder that it had moved aside, or remove that one."""
    path = _itself(path)
    earlier = _earlier(path)
    if not earlier.exists():
        return
    if path.exists():
        shutil.rmtree(earlier, ignore_errors=True)
    else:
        os.replace(earlier, path)
        logger.warning("%s is back: a process that was to replace it was killed meanwhile", path)


def _itself(path: Path) -> Path:
    """Return the folder that a path means: a link stays a link, and what it leads to is replaced."""
    return Path(os.path.realpath(path))


def _earlier(path: Path) -> Path:
    return path.parent / f".{path.name}.replaced"


def _lock_file(out: Path) -> Path:
    # Of the folder itself, by whatever name or link it is called.
    folder = _itself(Path(out))
    return folder.parent / f".{folder.name}.lock"


def _make_parents(lock: Path) -> list[Path]:
    """Make the folders that a lock lies in, and return those that were not there, the innermost first."""
    missing = [folder for folder in lock.parents if not folder.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _locked(lock: Path, out: str | Path) -> IO[str] | None:
    """Return the open file of a lock that this process now holds; None where the file system has no locks."""
    while True:
        file = lock.open("a+", encoding="utf-8")
        try:
            # A lock of the process: its children do not hold it on when it is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except OSError as error:
            if error.errno in _BUSY:
                raise InputError(_busy(out, _holder(file))) from None
            file.close()
            lock.unlink(missing_ok=True)
            logger.warning("%s cannot be locked (%s): start nothing else that writes there", out, error.strerror)
            return None
        # The process that held it has removed the file that was opened here.
        file.close()


def _holder(file: IO[str]) -> dict[str, Any]:
    with file:
        file.seek(0)
        try:
            found = json.loads(file.read())
        except ValueError:
            found = None
    return found if isinstance(found, dict) else {}


def _busy(out: str | Path, holder: dict[str, Any]) -> str:
    who = "another process"
    if holder:
        who = "{command} (process {pid} on {host}, since {started})".format_map(
            {name: holder.get(name, "?") for name in ("command", "pid", "host", "started")}
        )
    return f"{out} is being written by {who}; wait for its end or give another folder with --out"

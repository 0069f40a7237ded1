"""Where results go, checked before the work that makes them."""

from __future__ import annotations

import os
from pathlib import Path

from spaf_model.errors import InputError

_LONGEST_NAME = 255  # bytes, of the file systems there are


def check_output(*outputs: Path | None, folder: bool = False) -> None:
    """Refuse places where a result could not be written.

    Parameters
    ----------
    outputs
        Files to write, or folders to make; None is not wanted.
    folder
        Whether they are folders.

    Raises
    ------
    InputError
        If a folder stands where a file shall be or the other way round, what is above is a file, or nothing may be
        written there.
    """
    for output in outputs:
        if output is None:
            continue
        if len(os.fsencode(output.name)) > _LONGEST_NAME:
            raise InputError(f"{output.name[:40]}... is too long for the name of a file; give a shorter one.")
        if output.is_dir() and not folder:
            raise InputError(f"{output} is a folder; give the name of the file to write.")
        if output.exists() and not output.is_dir() and folder:
            raise InputError(f"{output} is a file; give the name of a folder.")
        if output.exists() and not output.is_dir() and not output.is_file():
            raise InputError(f"{output} is neither a file nor a folder; give the name of a file to write.")
        above = output.absolute() if folder else output.absolute().parent
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise InputError(f"{output} cannot be written: {above} is a file, not a folder.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise InputError(f"{output} cannot be written: nothing may be written to {above}.")


def check_key(key: str, option: str = "key_added") -> None:
    """Refuse names under which nothing can be stored in an h5ad.

    Raises
    ------
    InputError
        If the name is empty, has a slash, which makes a folder of it, or is that of the coordinates.
    """
    if key == "spatial":
        raise InputError(f"{option} cannot be 'spatial': the coordinates of the cells would be lost.")
    if not key or "/" in key or "\0" in key or key in (".", ".."):
        raise InputError(f"{option} is the name of a key in the AnnData; it must not be empty or hold '/', as {key!r}.")

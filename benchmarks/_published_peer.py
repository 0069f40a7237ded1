"""The published package in a process of its own, told what to do in between our own runs, so that they are pairs."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Peer:
    """A running `_published_speed.py`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.versions = self._answer()

    def ask(self, do: str, cells: Path, **options: Any) -> dict[str, float]:
        """Return seconds and CPU seconds of one task."""
        assert self._process.stdin is not None
        task = {"do": do, "cells": str(cells), **{name: _plain(value) for name, value in options.items()}}
        print(json.dumps(task), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The process of the published package ended.")
        return json.loads(line)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@contextmanager
def published_peer(python: Path, folder: Path, *, threads: int) -> Iterator[Peer]:
    """Start the published package; it leaves a checkpoint with its weights in the folder."""
    script = Path(__file__).with_name("_published_speed.py")
    process = subprocess.Popen(
        [python.absolute(), "-W", "ignore", script, folder, str(threads)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Peer(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()

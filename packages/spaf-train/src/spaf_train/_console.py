"""What commands show on a terminal: names of slides and genes as they are, for brackets are no markup here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_WIDTH = 120  # columns of tables in a file or a pipe, where there is no terminal to ask


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show that something is going on, on stderr, where that is a terminal."""
    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def wide_console() -> Console:
    """Return a console for tables on stdout."""
    console = Console(markup=False)
    return console if console.is_terminal else Console(width=_WIDTH, markup=False)

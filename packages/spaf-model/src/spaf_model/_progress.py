"""A progress bar that is quiet when nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def progress_bar(title: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None] | None]:
    """Yield a function that advances a bar on stderr, or None where no bar is wanted or stderr is no terminal."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield None
        return
    with Progress(console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda n: bar.advance(task, n)

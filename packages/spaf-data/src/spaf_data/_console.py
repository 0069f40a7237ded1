"""What commands show on a terminal: names of slides, tissues and genes as they are, for brackets are no markup here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


def console(*, stderr: bool = False) -> Console:
    """Return a console that shows text as it is."""
    return Console(stderr=stderr, markup=False)


@contextmanager
def progress() -> Iterator[Callable[[str, str, float], None]]:
    """Yield a function that shows how far a thing is, as a bar on stderr; silent where that is no terminal."""
    shown = console(stderr=True)
    columns = (
        TextColumn("{task.fields[name]}", markup=False),
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=shown, disable=not shown.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(name: str, step: str, fraction: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(step, total=1.0, name=name)
            bars.update(tasks[name], description=step, completed=fraction)

        yield report

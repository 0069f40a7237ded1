"""The progress bar of a run."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """A bar on stderr with loss, tokens a second and time left; nothing where stderr is no terminal.

    Parameters
    ----------
    steps
        Steps of the run.
    completed
        Steps taken before this process began.
    enabled
        False for all processes but the main one.
    title
        What is being done.
    """

    def __init__(self, steps: int, *, completed: int = 0, enabled: bool = True, title: str = "pretrain") -> None:
        console = Console(stderr=True, markup=False)
        self._progress = Progress(
            TextColumn(title, markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
        )
        self._task = self._progress.add_task(title, total=steps, completed=completed, status="")

    def update(self, step: int, status: str) -> None:
        """Show a step and a few words about it."""
        self._progress.update(self._task, completed=step, status=status)

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

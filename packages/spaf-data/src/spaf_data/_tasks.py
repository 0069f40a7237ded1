"""One task an item: here, in processes of their own, or on a dask.distributed cluster.

A task that fails becomes a `Failure` with its reason, so that it does not lose the others.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import numba

from spaf_data.errors import InputError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Task = Callable[[Item], Result]
# The number of the item, and what became of it, in the order in which tasks end.
Outcomes = Iterator[tuple[int, "Result | Failure"]]

_CONNECT_SECONDS = 30
_one_task_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Failure:
    """Why a task has no result, as a sentence without its full stop."""

    reason: str


def attempt(task: Task[Item, Result], item: Item) -> Result | Failure:
    """Run a task; what it raises becomes a `Failure`."""
    try:
        return task(item)
    except InputError as error:
        return Failure(str(error).removesuffix("."))
    except MemoryError:
        return Failure("there is not enough memory")
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return Failure(named or str(error) or type(error).__name__)
    except Exception as error:
        logger.exception("a task failed")
        return Failure(f"{type(error).__name__}: {error}")


def run_here(task: Task[Item, Result], items: Sequence[Item]) -> Outcomes[Result]:
    """Run tasks one after another in this process."""
    for number, item in enumerate(items):
        yield number, attempt(task, item)


def run_in_processes(task: Task[Item, Result], items: Sequence[Item], jobs: int) -> Outcomes[Result]:
    """Run up to `jobs` tasks at a time, each in a new process, which gives its memory back when the task ends.

    The system may kill a process that takes too much memory: then that task has failed and the others go on. Threads of
    the kernels are shared out among the processes.
    """
    n_threads = max(1, numba.get_num_threads() // min(jobs, len(items)))
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(_in_new_process, task, item, n_threads): number for number, item in enumerate(items)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _in_new_process(task: Task[Item, Result], item: Item, n_threads: int) -> Result | Failure:
    # Forked copies of a process with threads (pyarrow, numba) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_begin_process, initargs=(n_threads,)) as process:
        try:
            return process.submit(attempt, task, item).result()
        except BrokenProcessPool:
            return Failure("its process was killed, perhaps because memory ran out (fewer --jobs need less)")


def _begin_process(n_threads: int) -> None:
    numba.set_num_threads(n_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent, which a kill -9 gives no chance to stop its processes, and end this one too."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in child processes alone"
    parent.join()
    os._exit(1)


def run_on_cluster(task: Task[Item, Result], items: Sequence[Item], scheduler: str) -> Outcomes[Result]:
    """Run tasks on the workers of a dask.distributed scheduler, one at a time in each worker process.

    Raises
    ------
    InputError
        If dask.distributed is not installed or no scheduler answers at the address.
    """
    try:
        import distributed
    except ImportError as error:
        raise InputError("a scheduler needs dask.distributed: pip install 'spaf-data[cluster]'") from error
    try:
        client = distributed.Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"no dask scheduler answers at {scheduler}: {error}") from error
    with client, client.as_current():
        futures = {client.submit(_alone, task, item, pure=False): number for number, item in enumerate(items)}
        for future in distributed.as_completed(futures):
            yield futures[future], _result(future)


def _alone(task: Task[Item, Result], item: Item) -> Result | Failure:
    # Workers with several threads would need the memory of several tasks, and not all thread layers of Numba can be
    # entered by two threads at once.
    with _one_task_at_a_time:
        return attempt(task, item)


def _result(future: Any) -> Any:
    try:
        error = future.exception()
    except CancelledError:
        return Failure("the scheduler was lost")
    # Tasks raise nothing: this is the worker that died, or a version of the package that cannot read the task.
    return future.result() if error is None else Failure(f"its worker failed: {type(error).__name__}: {error}")

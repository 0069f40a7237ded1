"""Sharing the cells of a job among the processes of torch.distributed."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from numpy.typing import NDArray

from spaf_model.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_ROWS_AT_A_TIME = 65_536  # of an array that is sent


class Processes:
    """The processes that share a job; without a group, this one alone.

    Parameters
    ----------
    group
        Process group that can send CPU tensors.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.n = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)

    def share(self, n_cells: int, rank: int | None = None) -> tuple[int, int]:
        """Return from which cell to which a process works: contiguous shares of equal size, give or take one."""
        rank = self.rank if rank is None else rank
        return n_cells * rank // self.n, n_cells * (rank + 1) // self.n

    def collect(self, rows: NDArray[np.float32]) -> None:
        """Fill in the rows of the other processes' shares; every process must call it."""
        if self._group is None:
            return
        for rank in range(self.n):
            start, stop = self.share(len(rows), rank)
            for first in range(start, stop, _ROWS_AT_A_TIME):
                piece = torch.from_numpy(rows[first : min(first + _ROWS_AT_A_TIME, stop)])
                dist.broadcast(piece, src=rank, group=self._group)  # the group holds every process

    def total(self, value: int) -> int:
        """Return the sum of a number over the processes."""
        if self._group is None:
            return value
        number = torch.tensor([value])
        dist.all_reduce(number, group=self._group)
        return int(number)

    @contextlib.contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Raise an `InputError` of one process in all of them, so that none waits for one that has given up."""
        if self._group is None:
            yield
            return
        own: InputError | None = None
        try:
            yield
        except InputError as error:
            own = error
        sentences: list[str | None] = [None] * self.n
        dist.all_gather_object(sentences, None if own is None else str(own), group=self._group)
        first = next((sentence for sentence in sentences if sentence is not None), None)
        if first is not None:
            raise InputError(first) from own


@contextlib.contextmanager
def shared_processes(wanted: bool) -> Iterator[Processes]:
    """Yield the processes of torch.distributed, or this one alone where sharing is not wanted.

    Raises
    ------
    InputError
        If it is wanted, and torch.distributed has not been initialised.
    """
    if not wanted:
        yield Processes()
        return
    if not (dist.is_available() and dist.is_initialized()):
        raise InputError(
            "distributed=True needs an initialised torch.distributed: start with torchrun and call init_process_group."
        )
    # Results lie in main memory, and the group of the user may be able to send GPU tensors only.
    group = dist.new_group(backend="gloo")
    try:
        yield Processes(group)
    finally:
        dist.destroy_process_group(group)


def launched_by_torchrun() -> bool:
    """Whether this is one of several processes that torchrun started."""
    return dist.is_available() and dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def torchrun_group() -> Iterator[tuple[int, int]]:
    """Join the processes that torchrun started; yield the rank, and the rank among those on this machine."""
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), int(os.environ.get("LOCAL_RANK", "0"))
    finally:
        dist.destroy_process_group()


def ends_at_once(main: Callable[[], None]) -> Callable[[], None]:
    """Let a command that is one of several processes end without tearing down what is in memory.

    A thread of gloo that still lets go of a tensor while the interpreter is taken down aborts the process, long after
    its work was done: one process in some dozens, on a busy machine.
    """

    @functools.wraps(main)
    def command() -> None:
        try:
            main()
        except SystemExit as end:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not isinstance(end.code, str):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code or 0)
            raise

    return command

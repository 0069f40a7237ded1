"""Batches that are made ahead of the steps that need them, in processes of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from spaf_train.stream.batch import Batch, Stream

_Prepared = tuple[list[Batch], dict[str, int]]


class WorkerStream:
    """A stream of batches that worker processes build in turn: worker w of W the steps w, w + W, ...

    The batches are those of the stream itself, in its order, so whether a run has workers changes nothing in it. Each
    worker reads every block; one or two are enough for most networks.

    Parameters
    ----------
    stream
        What is to be built. Its place is that of the next step, not how far ahead the workers are.
    workers
        Number of processes, at least 1. They start with the first step.
    """

    def __init__(self, stream: Stream, workers: int) -> None:
        self.stream = stream
        self.workers = workers
        self._steps: Iterator[_Prepared | Exception] | None = None

    @property
    def batches_per_step(self) -> int:
        """Batches of a step over all processes."""
        return self.stream.batches_per_step

    def state_dict(self) -> dict[str, int]:
        """Return the place of the next batch."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a place that `state_dict` gave; what was built ahead is left."""
        self._steps = None
        self.stream.load_state_dict(state)

    def next_step(self) -> list[Batch]:
        """Return this rank's batches of the next step.

        Raises
        ------
        Exception
            What the stream raises, in the step where it would itself.
        """
        if self._steps is None:
            self._steps = self._start()
        prepared = next(self._steps)
        if isinstance(prepared, Exception):
            self._steps = None
            raise prepared
        batches, place = prepared
        self.stream.load_state_dict(place)
        return batches

    def _start(self) -> Iterator[_Prepared | Exception]:
        return iter(
            DataLoader(
                _Steps(self.stream),
                batch_size=None,
                num_workers=self.workers,
                collate_fn=_as_it_is,
                # A forked process would inherit threads of numba and torch that do not run in it.
                multiprocessing_context="spawn",
                # Its own generator, so that the run's is not drawn from.
                generator=torch.Generator(),
            )
        )


class _Steps(IterableDataset[_Prepared | Exception]):
    """The steps of one worker, with the place behind each; the last item may be an error."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[_Prepared | Exception]:
        worker = get_worker_info()
        assert worker is not None
        # Ctrl-C reaches every process of a terminal; the run itself decides when to end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        number = 0
        while True:
            try:
                if number % worker.num_workers == worker.id:
                    yield self.stream.next_step(), self.stream.state_dict()
                else:
                    self.stream.skip_step()
            except Exception as error:  # noqa: BLE001
                # Handed on whole, whatever it is: the loader would wrap a traceback around it.
                yield error
                return
            number += 1


def _as_it_is(item: Any) -> Any:
    return item

import math
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import call

import pytest

from spaf_data import InputError, _tasks
from spaf_data._tasks import Failure, attempt, run_here, run_in_processes, run_on_cluster

with pytest.raises(ValueError) as _raised:  # noqa: PT011  # its words differ between versions of Python
    math.sqrt(-1.0)
DOMAIN_ERROR = Failure(f"ValueError: {_raised.value}")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("no cell has 30 transcripts."), "no cell has 30 transcripts"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(13, "Permission denied", "a.parquet"), "a.parquet: Permission denied"),
        (MemoryError(), "there is not enough memory"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_what_a_task_raises_becomes_a_sentence(error, reason):
    def fail(_):
        raise error

    assert attempt(fail, None) == Failure(reason)


def test_here():
    assert list(run_here(math.sqrt, [4.0, -1.0, 9.0])) == [(0, 2.0), (1, DOMAIN_ERROR), (2, 3.0)]


def test_a_process_that_dies_loses_its_own_task_alone():
    tasks = [os.getpid, partial(os._exit, 3), partial(math.sqrt, -1.0)]
    ended = dict(run_in_processes(call, tasks, jobs=2))
    assert sorted(ended) == [0, 1, 2]
    assert ended[0] != os.getpid()
    assert isinstance(ended[1], Failure)
    assert "killed" in ended[1].reason
    assert ended[2] == DOMAIN_ERROR


def test_cluster(scheduler):
    ended = dict(run_on_cluster(math.sqrt, [4.0, -1.0, 9.0], scheduler))
    assert ended == {0: 2.0, 1: DOMAIN_ERROR, 2: 3.0}


def test_a_worker_of_many_threads_runs_one_task_at_a_time():
    running, most = 0, 0
    lock = threading.Lock()

    def task(_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial(_tasks._alone, task), range(8)))
    assert most == 1


def test_no_scheduler_answers(monkeypatch):
    monkeypatch.setattr(_tasks, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match="no dask scheduler answers at tcp://127.0.0.1:9"):
        list(run_on_cluster(math.sqrt, [4.0], "tcp://127.0.0.1:9"))
    with pytest.raises(InputError, match="no dask scheduler answers at nonsense://x"):
        list(run_on_cluster(math.sqrt, [4.0], "nonsense://x"))


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'spaf-data\[cluster\]'"):
        list(run_on_cluster(math.sqrt, [4.0], "tcp://127.0.0.1:9"))

"""Threads of one call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from spaf_model.errors import InputError


def check_threads(n_threads: int) -> None:
    """Refuse a number of threads below 1."""
    if n_threads < 1:
        raise InputError(f"n_threads must be at least 1, not {n_threads}.")


@contextlib.contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Give torch so many threads for a while."""
    former = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(former)

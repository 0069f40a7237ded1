"""The processes of a run: one alone, or several under torchrun."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from spaf_data import InputError as DataError
from spaf_data import claim
from spaf_model import InputError

Device = Literal["auto", "cpu", "cuda"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """How several processes share a network; one alone has all of it. A run may be continued with another strategy."""

    strategy: Literal["ddp", "fsdp"] = "ddp"  # fsdp: weights and optimizer state are divided among the processes


@dataclasses.dataclass(frozen=True)
class Ranks:
    """One process among the processes of a run; the methods do nothing when it is alone."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks."""
        if self.world_size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def claimed(out: Path, command: str, group: Ranks) -> Iterator[None]:
    """Let one run at a time write to a folder: the first process claims it for all (`spaf_data.claim`).

    Raises
    ------
    InputError
        On every rank, if another process writes to the folder.
    """
    with ExitStack() as stack:
        problem = None
        if group.is_main:
            try:
                stack.enter_context(claim(out, command))
            except DataError as error:
                problem = f"{error}."
        problem = group.gather(problem)[0]
        if problem is not None:
            raise InputError(problem)
        yield


@contextmanager
def ranks(device: Device = "auto") -> Iterator[Ranks]:
    """Join the processes that torchrun started, or stand alone.

    Parameters
    ----------
    device
        ``"cuda"`` takes the GPU of the local rank (nccl), ``"cpu"`` none (gloo), ``"auto"`` a GPU where there is one.

    Raises
    ------
    InputError
        If a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("run.device is cuda, but this machine has no usable CUDA device; choose cpu or auto.")
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), place) if dist.is_initialized() else Ranks(0, 1, place)
        return
    if use_cuda:
        torch.cuda.set_device(place)
    store, rank, world_size = next(rendezvous("env://"))
    # torchrun may serve one store for all its attempts; without a prefix, processes that were started again would find
    # the addresses of those that died, and wait for them for ever.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt-{attempt}", store)
    dist.init_process_group("nccl" if use_cuda else "gloo", store=store, rank=rank, world_size=world_size)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()

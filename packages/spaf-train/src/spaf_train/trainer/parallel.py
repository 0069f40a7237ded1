"""A module over several processes: whole on each (DDP), or divided among them (FSDP2), behind one interface."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# Divided tensors take seconds to import, and are there with "fsdp" alone.
if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

    from spaf_train.trainer.distributed import Ranks
    from spaf_train.trainer.module import TrainingModule


class ParallelModule:
    """A training module as the processes of a run share it.

    States go in and out whole, in plain tensors and under the names of the undivided module, so a checkpoint can be
    read with any strategy and any number of processes.

    Parameters
    ----------
    module
        On the device of `ranks`, with equal values on every rank. With ``"fsdp"`` it is divided in place.
    ranks
        The processes.
    strategy
        See `DistributedConfig`; of no effect where there is one process.
    all_used
        Whether every parameter that is trained has a gradient in every step.
    by_layer
        Whether ``"fsdp"`` gathers the weights of a layer at a time. Where ranks pass unlike numbers of parts of their
        batches through the layers they could not agree on when, and the module is gathered as a whole.
    """

    def __init__(
        self,
        module: TrainingModule,
        ranks: Ranks,
        *,
        strategy: Literal["ddp", "fsdp"],
        all_used: bool,
        by_layer: bool = True,
    ) -> None:
        self.module = module
        self.ranks = ranks
        self.forward: nn.Module = module
        self._divided: FSDPModule | None = None
        self._undivided: list[nn.Parameter] = []
        if ranks.world_size == 1:
            return
        if strategy == "ddp":
            # Running statistics move alike on all ranks (`RunningStatistics`); torch 2.13 has a new name for that.
            names = inspect.signature(DistributedDataParallel).parameters
            own_buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
            options: dict[str, Any] = {own_buffers: False, "find_unused_parameters": not all_used}
            self.forward = DistributedDataParallel(module, **options)
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        # A single number cannot be divided; there are a handful, and their gradients are averaged here.
        self._undivided = [parameter for parameter in module.parameters() if parameter.ndim == 0]
        mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
        for layer in module.network.blocks() if by_layer else ():
            fully_shard(layer, mesh=mesh)
        self._divided = fully_shard(module, mesh=mesh, ignored_params=set(self._undivided))

    @contextlib.contextmanager
    def synchronised(self, wanted: bool) -> Iterator[None]:
        """Average gradients over the ranks in the backward passes within, or leave that to a later one."""
        if isinstance(self.forward, DistributedDataParallel) and not wanted:
            with self.forward.no_sync():
                yield
            return
        if self._divided is not None:
            self._divided.set_requires_gradient_sync(wanted)
        yield

    @torch.no_grad()
    def clip_gradients(self, largest: float) -> float:
        """Scale the gradient down to a norm, and return the norm that it had.

        After the last backward pass of a step; every rank calls this.
        """
        for parameter in self._undivided:
            if parameter.grad is not None:
                parameter.grad = self.ranks.sum(parameter.grad) / self.ranks.world_size
        if self._divided is None:
            return float(nn.utils.clip_grad_norm_(self.module.parameters(), largest))
        from torch.distributed.tensor import DTensor

        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        parts = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
        common = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
        square = self.ranks.sum(nn.utils.get_total_norm(parts).square().to(self.ranks.device))
        norm = (square + nn.utils.get_total_norm(common).square().to(self.ranks.device)).sqrt()
        for gradient in [*parts, *common]:
            gradient.mul_(torch.clamp(largest / (norm + 1e-6), max=1.0))
        return float(norm)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Have all weights whole on every rank, so that each can call parts of the network as often as it likes."""
        if self._divided is None:
            yield
            return
        from torch.distributed.fsdp import FSDPModule

        layers = [layer for layer in self.module.network.blocks() if isinstance(layer, FSDPModule)]
        for part in (self._divided, *layers):
            part.unshard()
        for layer in layers:
            layer.set_reshard_after_forward(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.set_reshard_after_forward(True)
            for part in (self._divided, *layers):
                part.reshard()

    def state_dict(self, module: nn.Module) -> dict[str, Any]:
        """Return the whole state of the module, or of a part of it; every rank calls this, the main one uses it."""
        return module.state_dict() if self._divided is None else self._whole(module.state_dict())

    def optimizer_state_dict(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimizer of the module; every rank calls this, the main one uses it."""
        return optimizer.state_dict() if self._divided is None else self._whole(optimizer.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a whole state of the module."""
        if self._divided is not None:
            own = self.module.state_dict()
            state = {name: _divide_like(own.get(name), value) for name, value in state.items()}
        self.module.load_state_dict(state)

    def load_optimizer_state_dict(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take over a whole state of an optimizer of the module."""
        if self._divided is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            divided = {
                number: {
                    name: _divide_like(parameters[number], value) if value.ndim else value
                    for name, value in entry.items()
                }
                for number, entry in state["state"].items()
            }
            state = {**state, "state": divided}
        optimizer.load_state_dict(state)

    def _whole(self, state: Any) -> Any:
        from torch.distributed.tensor import DTensor

        if isinstance(state, DTensor):
            # One tensor at a time is whole on a device, and only the main rank keeps it.
            whole = state.full_tensor()
            return whole.cpu() if self.ranks.is_main else None
        if isinstance(state, dict):
            return {key: self._whole(value) for key, value in state.items()}
        return state


def _divide_like(own: Tensor | None, value: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(own, DTensor):
        # Every rank has read the same checkpoint, so nothing needs to be sent.
        return distribute_tensor(value.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
    return value

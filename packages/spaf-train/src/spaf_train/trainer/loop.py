"""The training loop: steps, validation, checkpoints, and stopping in good order."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spaf_train.stream.workers import WorkerStream
from spaf_train.trainer.compiling import compile_blocks
from spaf_train.trainer.distributed import DistributedConfig, Ranks
from spaf_train.trainer.divergence import TrainingDivergedError
from spaf_train.trainer.logs import Log, open_logs
from spaf_train.trainer.memory import MemoryCheckpoints, MemoryLog
from spaf_train.trainer.module import TrainingModule
from spaf_train.trainer.optim import OptimizerConfig, learning_rate, make_optimizer
from spaf_train.trainer.parallel import ParallelModule
from spaf_train.trainer.progress import TrainingProgress
from spaf_train.trainer.recomputing import recompute_layers
from spaf_train.trainer.running_statistics import RunningStatistics
from spaf_train.trainer.utilisation import TrainingOperations, describe_step
from spaf_train.trainer.validation import Validation, look

if TYPE_CHECKING:
    from spaf_model import Network
    from spaf_train.objectives import ObjectiveSet
    from spaf_train.stream.batch import Batch, Stream
    from spaf_train.trainer.checkpoint import Checkpoints
    from spaf_train.trainer.config import RunConfig
    from spaf_train.trainer.signals import StopRequest

logger = logging.getLogger(__name__)


class Trainer:
    """A run in progress: the network, the optimizer and the place in the data.

    Nothing random is kept between steps: what a batch draws, dropout included, is seeded by its place in the stream.
    So a state is the weights, the optimizer and the place, and a run that continues from it is the run that was not
    interrupted, bit for bit on the same machine with the same numbers of threads and processes.

    Parameters
    ----------
    network
        What is trained, on the device of `ranks`.
    objectives, optimizer, run
        How.
    train, validation
        The batches of the two splits; without the second nothing is validated, for ``best_metric = "last"``.
    ranks
        The processes of the run.
    checkpoints, log_path
        Where the main process writes: files, or memory.
    identity
        Plain values that say which configuration and data a checkpoint belongs to; stored with each.
    distributed
        How several processes share the network.
    prepared
        What `Objective.prepare` gave, by objective: stored with each checkpoint.
    validate_first
        Whether the weights that the run begins with are a choice too; others with a validation loss that is not finite
        are then passed over, where the run would be ended.
    training_mode
        Puts the module into the mode that it is trained in.
    title
        Of the progress bar.
    """

    def __init__(
        self,
        network: Network[Any],
        *,
        objectives: ObjectiveSet,
        optimizer: OptimizerConfig,
        run: RunConfig,
        train: Stream,
        validation: Stream | None,
        ranks: Ranks,
        checkpoints: Checkpoints | MemoryCheckpoints,
        log_path: Path | MemoryLog,
        identity: dict[str, Any],
        distributed: DistributedConfig = DistributedConfig(),
        prepared: Mapping[str, Any] = MappingProxyType({}),
        validate_first: bool = False,
        training_mode: Callable[[nn.Module], object] = nn.Module.train,
        title: str = "pretrain",
    ) -> None:
        self._title = title
        self._validate_first = validate_first
        self._training_mode = training_mode
        self.objectives = objectives
        self.optimizer_config = optimizer
        self.run = run
        self.train: Stream | WorkerStream = WorkerStream(train, run.workers) if run.workers else train
        self.validation = validation
        self.ranks = ranks
        self.checkpoints = checkpoints
        self.log_path = log_path
        self.identity = identity
        self.prepared = dict(prepared)
        self._operations = TrainingOperations(network, objectives)
        if run.compile:
            compile_blocks(network)
        if run.activation_checkpointing:
            recompute_layers(network)
        self.module = TrainingModule(network, objectives).to(ranks.device)
        self.parallel = ParallelModule(
            self.module, ranks, strategy=distributed.strategy, all_used=self.module.all_used,
            by_layer=train.within_budget,
        )  # fmt: skip
        self.optimizer = make_optimizer(self.module, optimizer)
        self.statistics = RunningStatistics(network)
        self.step = 0
        self.seconds = 0.0
        self.best: dict[str, float] | None = None  # the metrics of the best validation, and its step
        self._since_best = 0  # validations
        self._due = False  # whether a validation at this step was broken off
        self.not_learnt, self.verdicts = dict[str, str](), dict[str, dict[str, Any]]()  # by the best validation
        self.asked = dict.fromkeys(objectives.enabled, 0.0)  # weight of all that each objective was asked
        self._interval: dict[str, float] = {}
        self._autocast = torch.bfloat16 if run.precision == "bf16" else None

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state of the run in tensors and plain values.

        Every rank calls this, and what the main one gets is whole.
        """
        return {
            "identity": self.identity,
            "step": self.step,
            "module": self.parallel.state_dict(self.module),
            "optimizer": self.parallel.optimizer_state_dict(self.optimizer),
            "stream": self.train.state_dict(),
            "best": self.best,
            "since_best": self._since_best,
            "validation_due": self._due,
            "not_learnt": self.not_learnt,
            "verdicts": self.verdicts,
            "asked": self.asked,
            "prepared": self.prepared,
            "interval": self._interval,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.step = int(state["step"])
        self.parallel.load_state_dict(state["module"])
        self.parallel.load_optimizer_state_dict(self.optimizer, state["optimizer"])
        self.train.load_state_dict(state["stream"])
        self.best = state["best"]
        self.prepared = dict(state.get("prepared", {}))
        self._since_best = int(state.get("since_best", 0))
        self._due = bool(state.get("validation_due", False))
        self.not_learnt, self.verdicts = dict(state.get("not_learnt", {})), dict(state.get("verdicts", {}))
        self.asked = dict(state.get("asked", self.asked))
        self._interval = dict(state["interval"])
        self.seconds = float(state["seconds"])

    def fit(self, stop: StopRequest) -> bool:
        """Train to the last step.

        Returns
        -------
        bool
            True if the last step was taken, or patience ended; False if the run was asked to stop and saved its state.

        Raises
        ------
        TrainingDivergedError
            If a loss or a gradient is not finite. The last checkpoint stays as it was.
        """
        began = time.perf_counter() - self.seconds
        with (
            open_logs(
                self.log_path if self.ranks.is_main else None,
                after=self.step,
                objectives=self.objectives.enabled,
                tensorboard=self.run.tensorboard,
            ) as logs,
            TrainingProgress(
                self.run.steps, completed=self.step, enabled=self.ranks.is_main, title=self._title
            ) as progress,
        ):
            if self._validate_first and self.step == 0:
                self._validate(logs, stop, progress)
            while self._due or (self.step < self.run.steps and not self._impatient):
                stopping = False
                if not self._due:  # what a run that was asked to stop had not looked at comes first
                    status, stopping = self._train_step(stop)
                    self.seconds = time.perf_counter() - began
                    progress.update(self.step, status)
                    last = self.step == self.run.steps
                    if last or self.step % self.run.log_every == 0:
                        self._log_interval(logs)
                    self._due = last or self.step % self.run.validate_every == 0
                if self._due:
                    self._due = not self._validate(logs, stop, progress)
                    self.seconds = time.perf_counter() - began
                last = not self._due and (self.step == self.run.steps or self._impatient)
                stopping |= self._due
                if last or stopping or self.step % self.run.checkpoint_every == 0:
                    self._save()
                if stopping and not last:
                    return False
        return True

    @property
    def _impatient(self) -> bool:
        """Whether as many validations as patience lasts have brought nothing better."""
        return 0 < self.run.patience <= self._since_best

    def _train_step(self, stop: StopRequest) -> tuple[str, bool]:
        began = time.perf_counter()
        names = self.objectives.enabled
        batches = self.train.next_step()
        waited = time.perf_counter() - began
        own = [
            [batch.weights()[name] for name in names] + [batch.n_tokens, self._operations.count(batch)]
            for batch in batches
        ]
        # One sum over all ranks: what the losses are divided by, tokens, work, and whether any rank is to stop.
        counts = torch.tensor([*map(sum, zip(*own, strict=True)), float(stop.received)], dtype=torch.float64)
        *step_weights, n_tokens, operations, stopping = self.ranks.sum(counts.to(self.ranks.device)).tolist()
        weights = dict(zip(names, step_weights, strict=True))
        rate = learning_rate(self.step, self.run.steps, self.optimizer_config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # A step of cells of which nothing is known asks nothing: neither a loss nor the learned scale is to move.
        factors = {
            name: factor if weights[name] else 0.0
            for name, factor in self.objectives.factors(self.step / self.run.steps).items()
        }

        self._training_mode(self.module)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.stack(
            [
                self._backward(batch, weights, factors, synchronise=place == len(batches) - 1)
                for place, batch in enumerate(batches)
            ]
        )
        largest = self.optimizer_config.clip_norm or math.inf
        norm = self.parallel.clip_gradients(largest)
        step_sums = self.ranks.sum(sums.sum(dim=0)).tolist()
        if not all(map(math.isfinite, [*step_sums, norm])):
            raise TrainingDivergedError(self._diagnose(batches, sums, weights, factors))
        self.optimizer.step()
        self.statistics.move(self.ranks)
        self.step += 1
        for name, weight in weights.items():
            self.asked[name] += weight

        losses = {
            name: value / max(weights[name], 1.0)
            for name, value in zip(names, step_sums, strict=False)
            if weights[name]
        }
        step_seconds = time.perf_counter() - began
        values = {f"loss_{name}": loss for name, loss in losses.items()}
        values |= {f"steps_{name}": 1.0 for name in losses}  # that asked for it
        values |= {"loss": sum(losses.values()), "learning_rate": rate, "steps": 1.0}
        values |= {"tokens": n_tokens, "step_seconds": step_seconds}
        values |= {f"weight_{name}": weights[name] for name in names}
        counts_of = zip(self.module.counted, step_sums[len(names) :], strict=True)
        values |= {f"counted_{column}": value for (_, column), value in counts_of}
        for name, value in values.items():
            self._interval[name] = self._interval.get(name, 0.0) + value
        status = describe_step(
            values["loss"],
            n_tokens=n_tokens,
            seconds=step_seconds,
            waited=waited,
            operations=operations,
            peak_tflops=self.run.peak_tflops * self.ranks.world_size,
        )
        return status, stopping > 0

    def _backward(
        self, batch: Batch, weights: dict[str, float], factors: dict[str, float], *, synchronise: bool
    ) -> Tensor:
        torch.manual_seed(batch.seed)
        with self.parallel.synchronised(synchronise):
            with torch.autocast(self.ranks.device.type, dtype=self._autocast, enabled=self._autocast is not None):
                share = 1.0 / self.train.batches_per_step
                total: Tensor
                sums: Tensor
                total, sums = self.parallel.forward(batch.to(self.ranks.device), weights, factors, share)
            # Gradients are averaged over ranks, and the losses are parts of a sum.
            (total * self.ranks.world_size).backward()
        return sums

    def _diagnose(
        self, batches: list[Batch], sums: Tensor, weights: dict[str, float], factors: dict[str, float]
    ) -> str:
        """Say which objective of which batch is not finite; every rank calls this."""
        own = [
            f"the loss of {name} in {batch.name}"
            for batch, row in zip(batches, sums.tolist(), strict=True)
            for name, value in zip(self.objectives.enabled, row, strict=False)
            if not math.isfinite(value)
        ]
        found = [what for per_rank in self.ranks.gather(own) for what in per_rank]
        what = found[0] if found else f"the gradient of {self._with_bad_gradient(batches, weights, factors)}"
        return self._not_finite(self.step + 1, what)

    def _not_finite(self, step: int, what: str) -> str:
        if isinstance(self.checkpoints, MemoryCheckpoints):
            return f"Step {step}: {what} is not finite; a lower learning_rate or a longer warmup_steps may help."
        kept = self.checkpoints.latest()
        where = f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
        advice = "A lower optimizer.learning_rate, a longer optimizer.warmup_steps or run.precision = fp32 may help."
        return f"Step {step}: {what} is not finite; {where}. {advice}"

    def _with_bad_gradient(self, batches: list[Batch], weights: dict[str, float], factors: dict[str, float]) -> str:
        """Take the batches again, each alone, and name the first whose gradient is not finite; every rank calls this.

        Gradients are summed over ranks, so that with several it is one of as many batches.
        """
        for batch in batches:
            self.optimizer.zero_grad(set_to_none=True)
            self._backward(batch, weights, factors, synchronise=True)
            if not math.isfinite(self.parallel.clip_gradients(math.inf)):
                return " or ".join(self.ranks.gather(batch.name))
        return " and ".join(self.ranks.gather(", ".join(batch.name for batch in batches)))

    def _log_interval(self, logs: list[Log]) -> None:
        interval, self._interval = self._interval, {}
        steps = interval["steps"]
        values = {name: interval[name] / steps for name in ("loss", "learning_rate")}
        # Of each objective over the steps that asked for it.
        asked = [name for name in self.objectives.enabled if f"loss_{name}" in interval]
        values |= {f"loss_{name}": interval[f"loss_{name}"] / interval.get(f"steps_{name}", steps) for name in asked}
        for name, column in self.module.counted:
            values[column] = interval[f"counted_{column}"] / max(interval[f"weight_{name}"], 1.0)
        values |= {"tokens_per_second": interval["tokens"] / interval["step_seconds"], "seconds": self.seconds}
        for log in logs:
            log.write(step=self.step, split="train", values=values)

    def _validate(self, logs: list[Log], stop: StopRequest, progress: TrainingProgress) -> bool:
        """Look at the validation split; return False if the run was asked to stop meanwhile, and nothing came of it."""
        if self.validation is None:
            self._keep_if_better({}, Validation({}, {}))
            return True
        batches = self.validation.one_epoch(max_inputs=self.run.validation_inputs)
        with self.parallel.gathered():
            found = look(
                self.module.network, batches, self.objectives, self.ranks, autocast=self._autocast, stop=stop,
                on_batch=lambda number: progress.update(self.step, f"validation, batch {number}"),
            )  # fmt: skip
        if found is None:
            return False
        metrics = found.metrics
        bad = [name for name, value in metrics.items() if name.startswith("loss_") and not math.isfinite(value)]
        if bad and not self._validate_first:
            what = f"the loss of {bad[0].removeprefix('loss_')} on the validation split"
            raise TrainingDivergedError(self._not_finite(self.step, what))
        for log in logs:
            log.write(step=self.step, split="validation", values={**metrics, "seconds": self.seconds})
        logger.info("step %d: %s", self.step, ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        self._keep_if_better(metrics, found)
        return True

    def _keep_if_better(self, metrics: dict[str, float], found: Validation) -> None:
        self._since_best += 1
        if self._is_better(metrics):
            self._since_best = 0
            self.best = {**metrics, "step": float(self.step)}
            never = {name: self.module.objectives[name].never_asked() for name in self.asked if not self.asked[name]}
            self.verdicts = found.verdicts()
            self.not_learnt = found.not_learnt() | {name: sentence for name, sentence in never.items() if sentence}
            network = self.parallel.state_dict(self.module.network)
            if self.ranks.is_main:
                self.checkpoints.save_best({"network": network}, step=self.step)

    def _is_better(self, metrics: dict[str, float]) -> bool:
        name = self.run.best_metric
        if name == "last":
            return self.step == self.run.steps or self._impatient
        if self.best is not None and not math.isfinite(metrics.get("loss", 0.0)):
            return False  # of weights that are no more; a share of right answers is a number even so
        before = math.nan if self.best is None else self.best.get(name, math.nan)
        now = metrics.get(name, math.nan)
        if self.best is None or math.isnan(before):
            return True
        return now < before if name.startswith("loss") else now > before

    def _save(self) -> None:
        state = self.state_dict()
        if self.ranks.is_main:
            best_step = int(self.best["step"]) if self.best else None
            self.checkpoints.save(state, step=self.step, best_step=best_step)
        self.ranks.barrier()

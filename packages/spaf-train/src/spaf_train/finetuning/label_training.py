"""Labels of cells as the one trainer sees them: an encoder with a head, an objective and a stream of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from spaf_model import Network, token_budget_batches
from spaf_train.evaluation.classification import classification_scores
from spaf_train.objectives import Column, Loss, Objective, ObjectiveConfig, Scores, Total
from spaf_train.objectives.chance import Judgement, entropy
from spaf_train.stream.batch import Batch

if TYPE_CHECKING:
    from spaf_model import TokenisedCells
    from spaf_train.evaluation.probing import Probe

_GROUPING = 2048  # shuffled cells among which those of similar length share a batch


class LabelNetwork(Network[Any]):
    """An encoder with a linear head on the embedding of a cell and its log counts, which begins as a probe.

    Parameters
    ----------
    network
        Of a model; trained in place.
    probe
        Of the embedding with the log counts behind it.
    pooling
        How one state is made of a cell, a method of the model.
    """

    def __init__(self, network: Network[Any], probe: Probe, pooling: str) -> None:
        super().__init__()
        self.network: Network[Any] = network
        self.pooling = pooling
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.from_numpy(probe.mean).float())
        self.register_buffer("scale", torch.from_numpy(probe.scale).float())
        self.head = nn.Linear(probe.mean.size, probe.bias.size)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(probe.weight))
            self.head.bias.copy_(torch.from_numpy(probe.bias))
        self._began = probe

    @property
    def width(self) -> int:
        """Dimensions of the state of a cell."""
        return self.network.width

    def pool(self, hidden: Tensor, batch: Any, method: str) -> Tensor:
        """Return one state a cell, as the encoder does."""
        return self.network.pool(hidden, batch, method)

    def blocks(self) -> Sequence[nn.Module]:
        """Return those of the encoder."""
        return self.network.blocks()

    def operations(self, batch: Any) -> float:
        """Return those of the encoder."""
        return self.network.operations(batch)

    def encode(self, batch: Any) -> Tensor:
        """Return hidden states."""
        return self.network.encode(batch)

    def logits(self, hidden: Tensor, cells: Any, log_counts: Tensor) -> Tensor:
        """Return logits (B, n_classes) of hidden states, of the batch `cells` with its log counts (B, n_genes)."""
        pooled = self.network.pool(hidden, cells, self.pooling).float()
        features = (torch.cat([pooled, log_counts], dim=1) - self.mean) * self.scale
        logits: Tensor = self.head(features)
        return logits

    def probe(self) -> Probe:
        """Return the head as it is now."""
        weight, bias = (tensor.detach().double().cpu().numpy() for tensor in (self.head.weight, self.head.bias))
        return dataclasses.replace(self._began, weight=weight, bias=bias)

    @torch.inference_mode()
    def predict(self, batches: Iterable[Batch], device: torch.device) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells of batches and what is predicted of them, in the order of the batches."""
        was_training = self.training
        self.eval()
        rows, predicted = [], []
        for batch in batches:
            batch = batch.to(device)
            targets = cast("LabelTargets", batch.targets["labels"])
            logits = self.logits(self.encode(batch.unmasked), batch.unmasked, targets.log_counts)
            rows.append(targets.rows.numpy())
            predicted.append(logits.argmax(dim=1).cpu().numpy())
        self.train(was_training)
        return np.concatenate(rows), np.concatenate(predicted)


@dataclasses.dataclass(frozen=True)
class LabelTargets:
    """The labels of the cells of a batch."""

    codes: Tensor  # int64 (B,)
    weights: Tensor  # float32 (n_classes,)
    log_counts: Tensor  # float32 (B, n_genes)
    rows: Tensor  # int64 (B,), which cells they are

    @property
    def weight(self) -> float:
        """What the summed loss of the batch is divided by: the sum of the weights of its cells."""
        return float(self.weights[self.codes].sum())

    def to(self, device: torch.device) -> LabelTargets:
        """Return the same on another device."""
        return dataclasses.replace(
            self, codes=self.codes.to(device), weights=self.weights.to(device),
            log_counts=self.log_counts.to(device),
        )  # fmt: skip


class _Scores(Scores):
    def __init__(self) -> None:
        self.confusion = np.zeros((0, 0))
        self.weights = np.zeros(0)

    def add(self, loss: Loss, targets: LabelTargets) -> None:
        if not self.confusion.size:
            n = targets.weights.numel()
            self.confusion, self.weights = np.zeros((n, n)), targets.weights.cpu().numpy()
        np.add.at(self.confusion, (targets.codes.cpu().numpy(), loss.answer.argmax(dim=-1).cpu().numpy()), 1.0)

    def parts(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.confusion, self.weights


class LabelObjective(Objective, registered=False):
    """Tell the label of a cell by the head of a `LabelNetwork`."""

    name = "labels"
    title = "labels"
    columns = (
        Column("loss_labels", "Labels, cross-entropy (nats)", "Labels", "cross-entropy (nat)"),
        Column("macro_f1", "Labels, macro-F1", "Labels, macro-F1", "share"),
        Column("balanced_accuracy", "Labels, balanced accuracy", "Labels, balanced accuracy", "share"),
        Column("accuracy", "Labels, accuracy", "Labels, accuracy", "share"),
    )

    def __init__(self) -> None:
        super().__init__(ObjectiveConfig(enabled=True))

    def targets(self, draw: Any) -> LabelTargets:
        """Raise TypeError: a `LabelStream` gives the targets with its batches."""
        raise TypeError("Labels are no part of a corpus.")

    def loss(self, network: Any, hidden: Tensor, targets: LabelTargets, batch: Any) -> Loss:
        """Return the cross-entropy, classes weighted."""
        logits = network.logits(hidden, batch, targets.log_counts).float()
        loss = functional.cross_entropy(logits, targets.codes, weight=targets.weights, reduction="sum")
        return Loss(loss, targets.weight, logits)

    def new_scores(self) -> Scores:
        """Return what counts answers."""
        return _Scores()

    def judge(self, total: Total, parts: Sequence[Any]) -> tuple[dict[str, float], Judgement]:
        """Return the shares of right answers, and the loss beside that of one answer for every cell."""
        confusion = sum(part for part, _ in parts if part.size)
        scores = {name: float(value) for name, value in classification_scores(confusion)._asdict().items()}
        constant = entropy(confusion.sum(axis=1) * parts[0][1])
        return scores, Judgement(self.name, total.loss, total.error, constant, title=self.title)


class LabelStream:
    """Batches of labelled cells, epoch after epoch, each shuffled by a seed.

    Parameters
    ----------
    tokenised
        All cells, as the tokeniser of the model prepared them (`spaf_model.Tokeniser`).
    log_counts
        Of all cells.
    codes
        Classes of all cells.
    rows
        The cells of the split.
    weights
        Of the classes.
    token_budget
        Most tokens of a batch, padding included.
    seed
        Of order and dropout.
    """

    batches_per_step = 1
    within_budget = True

    def __init__(
        self,
        tokenised: TokenisedCells[Any],
        log_counts: NDArray[np.float32],
        codes: NDArray[np.int64],
        rows: NDArray[np.int64],
        weights: Tensor,
        *,
        token_budget: int,
        seed: int,
    ) -> None:
        self._tokenised, self._log_counts, self._codes, self._rows = tokenised, log_counts, codes, rows
        self._weights = weights
        self._token_budget, self._seed = token_budget, seed
        self._lengths = tokenised.lengths[rows]
        self._epoch = self._batch = 0
        self._drawn: tuple[int, list[tuple[int, NDArray[np.int64]]]] | None = None

    def state_dict(self) -> dict[str, int]:
        """Return the place of the next batch."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a place that `state_dict` gave."""
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])

    def next_step(self) -> list[Batch]:
        """Return the next batch."""
        if self._drawn is None or self._drawn[0] != self._epoch:
            self._drawn = self._epoch, self._shuffled(self._epoch)
        seed, rows = self._drawn[1][self._batch]
        batch = self._build(seed, rows, f"batch {self._batch} of epoch {self._epoch}")
        self.skip_step()
        return [batch]

    def skip_step(self) -> None:
        """Pass over the next step."""
        if self._drawn is None or self._drawn[0] != self._epoch:
            self._drawn = self._epoch, self._shuffled(self._epoch)
        self._batch += 1
        if self._batch == len(self._drawn[1]):
            self._epoch, self._batch = self._epoch + 1, 0

    def one_epoch(self, epoch: int = 0, *, max_inputs: int | None = None) -> Iterator[Batch]:
        """Yield all cells once, shortest first, however many inputs are asked for."""
        for number, places in enumerate(token_budget_batches(self._lengths, self._token_budget)):
            yield self._build(0, self._rows[places], f"batch {number} of the validation")

    def _shuffled(self, epoch: int) -> list[tuple[int, NDArray[np.int64]]]:
        """Return a seed for dropout and the cells of each batch of an epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        shuffled = generator.permutation(self._rows.size)
        batches = []
        for start in range(0, self._rows.size, _GROUPING):
            group = shuffled[start : start + _GROUPING]
            batches += [group[places] for places in token_budget_batches(self._lengths[group], self._token_budget)]
        order = generator.permutation(len(batches))
        return [(int(generator.integers(2**62)), self._rows[batches[place]]) for place in order]

    def _build(self, seed: int, rows: NDArray[np.int64], name: str) -> Batch:
        cells = self._tokenised.batch(rows)
        targets = LabelTargets(
            torch.from_numpy(self._codes[rows]), self._weights, torch.from_numpy(self._log_counts[rows]),
            torch.from_numpy(rows),
        )  # fmt: skip
        return Batch(name, seed, cells, cells, {"labels": targets})

import pytest
import torch
from torch import nn

from spaf_train import TrainingDivergedError
from spaf_train.finetuning import FinetuneConfig, fit_early_stopping


class Scripted:
    """A module, and validation losses that are given; remembers the weights at each validation."""

    def __init__(self, losses):
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.losses = list(losses)
        self.seen = []

    def next_loss(self):
        self.module.train()
        return self.module(torch.randn(8, 3)).square().mean() + self.module[0].weight.sum()

    def validate(self):
        self.module.eval()
        self.seen.append({name: tensor.clone() for name, tensor in self.module.state_dict().items()})
        loss = self.losses[len(self.seen) - 1]
        return {"loss": loss, "macro_f1": loss / 10.0}

    def fit(self, **options):
        options = {"method": "full", "steps": 100, "validate_every": 3, "patience": 2, "learning_rate": 0.1, **options}
        return fit_early_stopping(self.module, self.next_loss, self.validate, FinetuneConfig(**options))


def same(state, other):
    return all(torch.equal(state[name], other[name]) for name in state)


def test_best_weights_come_back_and_training_stops_when_patience_ends():
    run = Scripted([5.0, 4.0, 3.0, 3.5, 3.2, 1.0])
    fit = run.fit()
    assert fit.best_step == 6
    assert fit.steps == 12
    assert fit.best["loss"] == 3.0
    assert [row["step"] for row in fit.history] == [0, 3, 6, 9, 12]
    assert same(run.module.state_dict(), run.seen[2])
    assert not same(run.module.state_dict(), run.seen[-1])


def test_training_that_only_harms_ends_where_it_began():
    run = Scripted([1.0, 2.0, 3.0])
    assert run.fit().best_step == 0
    assert same(run.module.state_dict(), run.seen[0])


def test_another_metric_can_decide():
    run = Scripted([3.0, 2.0, 4.0, 1.0, 1.0])
    assert run.fit(best_metric="macro_f1").best_step == 6
    assert same(run.module.state_dict(), run.seen[2])


def test_last_step_is_validated():
    run = Scripted([4.0, 3.0, 2.0])
    fit = run.fit(steps=4)
    assert fit.steps == fit.best_step == 4


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best():
    run = Scripted([4.0, 3.0, 2.0])
    steps = iter(range(100))
    original = run.next_loss
    run.next_loss = lambda: original() * (float("nan") if next(steps) == 4 else 1.0)
    with pytest.raises(TrainingDivergedError, match="Step 5: the loss or its gradient is not finite"):
        run.fit()
    assert same(run.module.state_dict(), run.seen[1])


def test_weights_with_a_loss_that_is_not_finite_are_never_the_best():
    run = Scripted([4.0, float("nan"), float("inf")])
    original = run.validate

    def validate():
        metrics = original()
        return {**metrics, "macro_f1": 0.1 * len(run.seen)}  # as shares of right answers may be, whatever the loss

    run.validate = validate
    assert run.fit(best_metric="macro_f1").best_step == 0
    assert same(run.module.state_dict(), run.seen[0])


def test_frozen_weights_stay():
    run = Scripted([4.0, 3.0, 2.0, 1.0, 1.0, 1.0])
    run.module[0].bias.requires_grad_(False)
    before = run.module[0].bias.clone()
    weight = run.module[0].weight.clone()
    run.fit()
    assert torch.equal(run.module[0].bias, before)
    assert not torch.equal(run.module[0].weight, weight)

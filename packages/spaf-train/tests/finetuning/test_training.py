import pytest
import torch

from spaf_train import ObjectivesConfig, TrainingDivergedError, TrainingModule
from spaf_train.finetuning import FinetuneConfig, fit_with_patience
from spaf_train.trainer import loop
from spaf_train.trainer.distributed import Ranks
from spaf_train.trainer.running_statistics import step_statistics
from spaf_train.trainer.validation import Validation

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def scripted(monkeypatch, network, make_stream):
    """Validation losses that are given; remembers the weights at each validation."""

    class Scripted:
        def __init__(self, losses, metric=lambda number, loss: loss / 10.0):
            self.losses, self.metric, self.seen, self.network = list(losses), metric, [], network
            monkeypatch.setattr(loop, "look", self.look)

        def look(self, network, *_, **__):
            self.seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
            loss = self.losses[len(self.seen) - 1]
            return Validation({"loss": loss, "macro_f1": self.metric(len(self.seen), loss)}, {})

        def fit(self, **options):
            given = {"method": "full", "steps": 100, "validate_every": 3, "patience": 2, "learning_rate": 0.01}
            stream, config = make_stream(), FinetuneConfig(**given | options)
            return fit_with_patience(
                network,
                ObjectivesConfig(),
                stream,
                stream,
                config,
                ranks=ALONE,
                validation_inputs=10,
                best_metric=config.best_metric or "loss",
            )

    return Scripted


def same(state, other):
    return all(torch.equal(state[name], other[name]) for name in other)


def test_best_weights_come_back_and_training_stops_when_patience_ends(scripted):
    run = scripted([5.0, 4.0, 3.0, 3.5, 3.2, 1.0])
    fit = run.fit()
    assert (fit.best_step, fit.steps, fit.best["loss"]) == (6, 12, 3.0)
    assert [row["step"] for row in fit.history] == [0, 3, 6, 9, 12]
    assert "training_loss" in fit.history[1]
    assert same(run.network.state_dict(), run.seen[2])
    assert not same(run.network.state_dict(), run.seen[-1])


def test_training_that_only_harms_ends_where_it_began(scripted):
    run = scripted([1.0, 2.0, 3.0])
    assert run.fit().best_step == 0
    assert same(run.network.state_dict(), run.seen[0])


def test_another_metric_can_decide(scripted):
    run = scripted([3.0, 2.0, 4.0, 1.0, 1.0])
    assert run.fit(best_metric="macro_f1").best_step == 6
    assert same(run.network.state_dict(), run.seen[2])


def test_last_step_is_validated(scripted):
    fit = scripted([4.0, 3.0, 2.0]).fit(steps=4)
    assert fit.steps == fit.best_step == 4


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best(scripted, monkeypatch):
    run = scripted([4.0, 3.0, 2.0])
    forward, taken = TrainingModule.forward, []

    def broken(self, *arguments):
        taken.append(1)
        total, sums = forward(self, *arguments)
        return total, sums * (float("nan") if len(taken) == 5 else 1.0)

    monkeypatch.setattr(TrainingModule, "forward", broken)
    with pytest.raises(TrainingDivergedError, match="Step 5: the loss of masked_genes in batch 4 of epoch 0"):
        run.fit()
    assert same(run.network.state_dict(), run.seen[1])


def test_weights_with_a_loss_that_is_not_finite_are_never_the_best(scripted):
    # Shares of right answers may be the better all the same.
    run = scripted([4.0, float("nan"), float("inf")], metric=lambda number, loss: 0.1 * number)
    assert run.fit(best_metric="macro_f1").best_step == 0
    assert same(run.network.state_dict(), run.seen[0])


def test_frozen_weights_stay(scripted):
    run = scripted([4.0, 3.0, 2.0, 1.0, 1.0, 1.0])
    run.network.embedding.requires_grad_(False)
    before = run.network.embedding.tokens.weight.clone()
    others = run.network.masked_gene_head.weight.clone()
    run.fit()
    assert torch.equal(run.network.embedding.tokens.weight, before)
    assert not torch.equal(run.network.masked_gene_head.weight, others)


def test_running_statistics_move_with_each_batch_again_afterwards(scripted):
    run = scripted([2.0, 1.0, 1.0, 1.0])
    run.fit()
    assert step_statistics(run.network)
    assert all(norm._sums is None for norm in step_statistics(run.network))

"""A fourth objective and another sampler are one class each: nothing else knows of them."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.nn import functional

from spaf_model import InputError, SpatialFormer
from spaf_train import pretrain, read_config
from spaf_train.objectives import OBJECTIVES, Column, Loss, Objective, ObjectiveConfig
from spaf_train.objectives.chance import Judgement, auroc_error, entropy
from spaf_train.objectives.scores import RankedScores, ranked
from spaf_train.stream.loader import BatchStream
from spaf_train.stream.samplers import SAMPLERS, Sampler
from spaf_train.stream.window import Inputs
from spaf_train.trainer.module import encode


@dataclasses.dataclass(frozen=True)
class RichLabels:
    labels: torch.Tensor

    @property
    def weight(self):
        return float(self.labels.numel())

    def to(self, device):
        return RichLabels(self.labels.to(device))


@pytest.fixture
def rich(monkeypatch):
    """Tell cells of many genes from those of few, from the state of CLS."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class RichConfig(ObjectiveConfig):
        many: int = 20  # tokens

    class Rich(Objective):
        name = "rich"
        title = "rich cells"
        columns = (
            Column("loss_rich", "Rich cells, cross-entropy (nats)", "Rich cells", "cross-entropy (nat)"),
            Column("auroc_rich", "Rich cells, AUROC", "rich cells", "AUROC"),
        )
        Config = RichConfig

        def targets(self, draw):
            return RichLabels((draw.tokens.lengths[:, 0] > self.config.many).float())

        def loss(self, network, hidden, targets, batch):
            logits = network.pool(hidden, batch, "cls")[:, 0].float()
            loss = functional.binary_cross_entropy_with_logits(logits, targets.labels, reduction="sum")
            return Loss(loss, targets.weight, logits)

        def new_scores(self):
            return RankedScores()

        def judge(self, total, parts):
            auroc, n_negative, n_positive, _ = ranked(parts)
            error = auroc_error(auroc, n_negative, n_positive)
            constant = entropy(np.array([n_positive, n_negative]))
            judged = Judgement(self.name, total.loss, total.error, constant, auroc, error, title=self.title)
            return {"auroc_rich": auroc}, judged

    yield Rich
    del OBJECTIVES["rich"]


@pytest.fixture
def compact():
    """The cells nearest to one of a slide, as one batch."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class CompactConfig:
        cells: int = 20

    class Compact(Sampler):
        name = "compact"
        Config = CompactConfig
        whole = True

        def batches(self, window):
            generator, cells = window.generator(), window.cells
            batches = []
            for middle in generator.integers(0, len(cells), 30):
                same = np.flatnonzero(cells.slide == cells.slide[middle])
                tree = cKDTree(cells.coordinates[same])
                nearest = tree.query(cells.coordinates[middle], k=self.config.cells)[1]
                batches.append(Inputs.of_cells(same[nearest]))
            return batches

    yield Compact
    del SAMPLERS["compact"]


def rows(out):
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_fourth_objective_is_trained_validated_and_told(rich, config_path, corpus, tmp_path):
    overrides = ["objectives.rich.enabled=true", "objectives.rich.weight=2", "run.steps=40", "run.validate_every=40"]
    overrides += ["optimizer.learning_rate=1e-2", "run.best_metric=auroc_rich"]
    config = read_config(config_path, overrides=overrides)
    assert config.objectives.enabled == ["masked_genes", "colocalization", "pairs", "rich"]
    assert config.objectives.factors(0.0)["rich"] == 2.0
    assert "[objectives.rich]" in config.to_toml()
    result = pretrain(config, corpus.path, tmp_path / "run")
    found = rows(tmp_path / "run")
    assert float(found[-1]["auroc_rich"]) > 0.6
    for row in found:
        parts = [float(value) for name, value in row.items() if name.startswith("loss_")]
        assert len(parts) == 4
        assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-6)
    card = SpatialFormer.from_pretrained(tmp_path / "run" / "model").card
    assert f"| Rich cells, AUROC | {result.best['auroc_rich']:.4f} |" in card
    assert "pairs, rich; input" in card
    assert read_config(tmp_path / "run" / "config.toml") == config


def test_an_objective_that_is_not_learnt_says_so_and_its_options_are_checked(rich, config_path, corpus, tmp_path):
    overrides = ["objectives.rich.enabled=true", "optimizer.learning_rate=1e-9", "optimizer.floor=0.0"]
    result = pretrain(read_config(config_path, overrides=overrides), corpus.path, tmp_path / "run")
    assert result.not_learnt["rich"].startswith("Nothing was learnt of rich cells")
    with pytest.raises(InputError, match=r"objectives\.rich\.meny is not an option; did you mean many"):
        read_config(config_path, overrides=["objectives.rich.meny=1"])
    with pytest.raises(InputError, match=r"run\.best_metric is auroc_rich, which needs an objective that is switched"):
        read_config(config_path, overrides=["run.best_metric=auroc_rich"])


def test_without_its_class_there_is_no_such_table(config_path):
    with pytest.raises(InputError, match=r"objectives\.rich is not an option"):
        read_config(config_path, overrides=["objectives.rich.enabled=true"])
    with pytest.raises(InputError, match="input must be one of pairs, cells"):
        read_config(config_path, overrides=["sampling.input=compact", "objectives.pairs.enabled=false"])


OVERRIDES = ["sampling.input=compact", "sampling.compact.cells=12", "objectives.pairs.enabled=false"]


def test_another_sampler_is_trained_on(compact, config_path, corpus, tmp_path):
    config = read_config(config_path, overrides=OVERRIDES)
    assert "[sampling.compact]" in config.to_toml()
    pretrain(config, corpus.path, tmp_path / "run")
    assert all(row["loss_masked_genes"] for row in rows(tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["parameters"]["config"]["sampling"]["compact"] == {"cells": 12}
    assert read_config(tmp_path / "run" / "config.toml") == config


def test_its_batches_are_functions_of_their_place_whatever_the_number_of_ranks(
    compact, config_path, corpus, vocabulary
):
    config = read_config(config_path, overrides=[*OVERRIDES, "sampling.batches_per_step=4"])

    def stream(rank=0, world_size=1):
        return BatchStream(
            corpus, SpatialFormer(config.model, vocabulary), config.sampling, config.objectives, split="train", seed=3,
            rank=rank, world_size=world_size,
        )  # fmt: skip

    alone, ranks = stream(), [stream(rank, 2) for rank in range(2)]
    for _ in range(20):  # into the third epoch
        state = alone.state_dict()
        expected = {batch.name: batch.masked.ids.numpy().tobytes() for batch in alone.next_step()}
        shared = {batch.name: batch.masked.ids.numpy().tobytes() for one in ranks for batch in one.next_step()}
        assert shared == expected
    again = stream()
    again.load_state_dict(state)
    assert {batch.name: batch.masked.ids.numpy().tobytes() for batch in again.next_step()} == expected
    for batch in stream().one_epoch():
        assert batch.unmasked.ids.shape[0] == 12


def test_a_batch_beyond_the_token_budget_passes_the_network_in_parts(compact, network, corpus, vocabulary, config_path):
    config = read_config(config_path, overrides=[*OVERRIDES, "sampling.token_budget=100"])
    model = SpatialFormer(config.model, vocabulary)
    stream = BatchStream(corpus, model, config.sampling, config.objectives, split="train", seed=3)
    batches = list(stream.one_epoch())
    network.eval()
    for batch in batches[:4]:
        assert len(batch.parts) > 1
        assert sum(batch.parts) == batch.masked.ids.shape[0]
        real = batch.masked.mask.unsqueeze(-1)
        whole, parts = (encode(network, batch.masked, sizes) for sizes in ((), batch.parts))
        torch.testing.assert_close(whole * real, parts * real, rtol=1e-4, atol=1e-5)

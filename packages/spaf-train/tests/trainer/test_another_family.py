"""A family from outside the package is trained, resumed, saved and embedded: nothing of the trainer knows of it."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import nn
from torch.nn import functional

from spaf_model import InputError, Model, Network, Vocabulary, family, load_model, register_family
from spaf_train import FinetuneConfig, finetune_labels, predict_labels, pretrain, read_config
from spaf_train.evaluation import BASELINES, EMBEDDING, RANDOM, EvaluationOptions, evaluate
from spaf_train.objectives import OBJECTIVES, Column, Loss, Objective, ObjectiveConfig, Scores
from spaf_train.objectives.chance import Judgement
from spaf_train.stream.loader import BatchStream
from spaf_train.trainer.module import encode


@dataclasses.dataclass(frozen=True, kw_only=True)
class TotalsConfig:
    width: int = 4
    rate: float = 1.0  # of what

    def as_dict(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values):
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Counts:
    """Log counts (B, G), which are no tokens."""

    values: torch.Tensor

    @property
    def n_tokens(self):
        return int((self.values > 0).sum())

    def split(self, sizes):
        return [Counts(part) for part in self.values.split(list(sizes))]

    def joined(self, states):
        return torch.cat(list(states))

    def to(self, device):
        return Counts(self.values.to(device))


@dataclasses.dataclass(frozen=True)
class CountedCells:
    cells: object

    @property
    def lengths(self):
        return self.cells.n_genes

    def batch(self, cells):
        return Counts(torch.from_numpy(np.log1p(self.cells.take(cells).matrix().toarray())))


class ShareOfUse(nn.Module):
    """What a step saw of each unit; it moves once a step."""

    counts = True

    def __init__(self, width):
        super().__init__()
        self.sums = None
        self.register_buffer("seen", torch.zeros(width))
        self.register_buffer("moves", torch.zeros(()))

    def forward(self, x):
        if self.sums is not None and self.training and self.counts:
            self.sums += (x.detach() > 0).sum(dim=0).double()
        return x

    def gather_statistics(self):
        self.sums = torch.zeros(self.seen.numel(), dtype=torch.float64)

    def gathered_statistics(self):
        return self.sums

    def move_statistics(self, sums):
        self.seen += sums
        self.moves += 1
        self.gather_statistics()

    def release_statistics(self):
        self.sums = None


class TotalsNetwork(Network[Counts]):
    def __init__(self, n_genes, config):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(n_genes, config.width), nn.GELU())
        self.use = ShareOfUse(config.width)
        self.decoder = nn.Linear(config.width, n_genes)

    @property
    def width(self):
        return self.inner[0].out_features

    def encode(self, batch):
        return self.use(self.inner(batch.values))

    def pool(self, hidden, batch, method):
        return hidden

    def blocks(self):
        return [self.inner]

    def compiled(self):
        return [(self.inner, "forward")]

    def operations(self, batch):
        return 2.0 * self.inner[0].weight.numel() * batch.values.shape[0]


class Totals(Model):
    family = "totals"
    Config = TotalsConfig
    methods = ("sum",)

    @staticmethod
    def new_vocabulary(genes, *, gene_ids=None, **context):
        return Vocabulary.of_genes(genes, gene_ids)

    def make_network(self):
        return TotalsNetwork(self.vocabulary.n_tokens, self.config)

    @property
    def tokeniser(self):
        return CountedCells


@dataclasses.dataclass(frozen=True)
class Around:
    """Log counts of each cell, and the mean of those of its neighbours."""

    own: torch.Tensor
    around: torch.Tensor

    @property
    def weight(self):
        return float(self.own.numel() + self.around.numel())

    def to(self, device):
        return Around(self.own.to(device), self.around.to(device))


class Nothing(Scores):
    def add(self, loss, targets):
        pass

    def parts(self):
        return None


@pytest.fixture
def totals(monkeypatch):
    """Register the family, and an objective that rebuilds counts of a cell and of its neighbours."""
    monkeypatch.setattr(family, "_registered", {})
    register_family(Totals)

    class Rebuild(Objective):
        name = "rebuild"
        title = "counts"
        columns = (Column("loss_rebuild", "Counts, squared error", "Counts", "squared error"),)
        Config = dataclasses.make_dataclass("Config", [], bases=(ObjectiveConfig,), frozen=True, kw_only=True)
        asks = ("decoder",)
        trains = ("decoder",)

        def targets(self, draw):
            rows = draw.inputs.left
            indptr, near = draw.cells.neighbours(rows, draw.distances.positive)
            own = np.log1p(draw.cells.take(rows).matrix().toarray())
            of_near = np.log1p(draw.cells.take(near).matrix().toarray())
            around = np.stack([of_near[slice(*indptr[k : k + 2])].sum(axis=0) for k in range(rows.size)])
            around /= np.maximum(np.diff(indptr), 1)[:, None]
            return Around(torch.from_numpy(own), torch.from_numpy(around.astype(np.float32)))

        def loss(self, network, hidden, targets, batch):
            found = network.decoder(network.pool(hidden, batch, "sum"))
            error = functional.mse_loss(found, targets.own, reduction="sum")
            error = error + functional.mse_loss(found, targets.around, reduction="sum")
            return Loss(error, targets.weight, found)

        def new_scores(self):
            return Nothing()

        def judge(self, total, parts):
            return {}, Judgement(self.name, total.loss, total.error, 1.0, title=self.title)

    yield Rebuild
    del OBJECTIVES["rebuild"]


CONFIG = """
seed = 3
[model]
family = "totals"
width = 6
[sampling]
input = "cells"
window_blocks = 2
token_budget = 300
batches_per_step = 2
thinning = 0.2
[objectives.rebuild]
enabled = true
[objectives.masked_genes]
enabled = false
[objectives.colocalization]
enabled = false
[objectives.pairs]
enabled = false
[optimizer]
learning_rate = 1e-2
warmup_steps = 2
[run]
steps = 12
log_every = 1
validate_every = 6
validation_inputs = 60
checkpoint_every = 2
threads = 1
device = "cpu"
"""


@pytest.fixture
def totals_path(totals, tmp_path):
    path = tmp_path / "totals.toml"
    path.write_text(CONFIG)
    return path


def losses(out):
    with (out / "metrics.csv").open(newline="") as file:
        return [row["loss_rebuild"] for row in csv.DictReader(file)]


def weights(out):
    return (out / "model" / "model.safetensors").read_bytes()


def test_it_is_trained_validated_saved_and_embeds(totals_path, corpus, slides, tmp_path):
    config = read_config(totals_path)
    result = pretrain(config, corpus.path, tmp_path / "run")
    assert result.finished
    found = [float(loss) for loss in losses(tmp_path / "run")]
    assert found[-1] < 0.8 * found[0]
    assert read_config(tmp_path / "run" / "config.toml") == config
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["parameters"]["config"]["model"] == {"family": "totals", "width": 6, "rate": 1.0}
    model = load_model(tmp_path / "run" / "model")
    assert isinstance(model, Totals)
    assert model.card.startswith("# Totals\n")
    assert "Counts, squared error" in model.card
    assert model.network.use.moves == result.best["step"]
    assert model.network.use.seen.sum() > 0
    cells = anndata.AnnData(slides[0].X.copy(), obs=slides[0].obs[[]], var=slides[0].var)
    model.embed(cells)
    with torch.no_grad():
        expected = model.network.inner(torch.from_numpy(np.log1p(cells.X.toarray().astype(np.float32))))
    np.testing.assert_allclose(cells.obsm["X_SpaF"], expected.numpy(), rtol=1e-5)


def test_it_goes_on_after_a_kill_to_the_same_bits(totals_path, corpus, tmp_path):
    config = read_config(totals_path)
    pretrain(config, corpus.path, tmp_path / "whole")
    script = tmp_path / "killed.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import os, pytest, test_another_family as here\n"
        "from spaf_train.trainer.checkpoint import Checkpoints\n"
        "made = here.totals.__wrapped__ if hasattr(here.totals, '__wrapped__') else here.totals\n"
        "patch = pytest.MonkeyPatch(); fixture = made(patch); next(fixture)\n"
        "save = Checkpoints.save\n"
        "def kill(self, state, *, step, best_step):\n"
        "    path = save(self, state, step=step, best_step=best_step)\n"
        "    if step == 8: os.kill(os.getpid(), 9)\n"
        "    return path\n"
        "Checkpoints.save = kill\n"
        f"here.pretrain(here.read_config({str(totals_path)!r}), {str(corpus.path)!r}, {str(tmp_path / 'killed')!r})\n"
    )
    killed = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "killed" / "model").exists()
    assert pretrain(config, corpus.path, tmp_path / "killed", resume=True).finished
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_options_of_the_run_ask_the_family(totals_path, corpus, tmp_path, monkeypatch):
    pretrain(read_config(totals_path), corpus.path, tmp_path / "plain")
    recomputed = read_config(totals_path, overrides=["run.activation_checkpointing=true", "run.peak_tflops=1"])
    pretrain(recomputed, corpus.path, tmp_path / "recomputed")
    assert losses(tmp_path / "recomputed") == losses(tmp_path / "plain")
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function) or function)
    pretrain(read_config(totals_path, overrides=["run.compile=true"]), corpus.path, tmp_path / "compiled")
    assert len(compiled) == 1
    assert losses(tmp_path / "compiled") == losses(tmp_path / "plain")


def test_a_batch_beyond_the_budget_passes_in_parts(totals_path, corpus):
    overrides = ["sampling.input=patches", "sampling.token_budget=60", "sampling.patches.sites=3"]
    config = read_config(totals_path, overrides=[*overrides, "sampling.patches.draws=3", "sampling.thinning=0"])
    model = Totals(config.model, Vocabulary.of_genes(corpus.genes))
    batches = list(BatchStream(corpus, model, config.sampling, config.objectives, split="train", seed=0).one_epoch())
    for batch in batches:
        assert len(batch.parts) > 1
        whole, parts = (encode(model.network, batch.unmasked, sizes) for sizes in ((), batch.parts))
        torch.testing.assert_close(whole, parts)


def test_neighbours_are_those_of_the_slide(totals_path, corpus):
    """All of them where the split is in memory; in windows those of the block and its halo, each once."""
    config = read_config(totals_path)
    model = Totals(config.model, Vocabulary.of_genes(corpus.genes))
    stream = BatchStream(corpus, model, config.sampling, config.objectives, split="train", seed=0)
    cells = stream.all_cells()
    expected = {}
    for slide in np.unique(cells.slide):
        own = np.flatnonzero(cells.slide == slide)
        near = cKDTree(cells.coordinates[own]).query_ball_point(cells.coordinates[own], 30.0)
        for cell, positions in zip(own, near, strict=True):
            others = cells.coordinates[np.setdiff1d(own[positions], [cell])]
            expected[cells.number[cell]] = sorted(map(tuple, others.tolist()))
    seen, n_found = set(), 0
    for number in range(stream._n_windows):
        window = stream._read_window(0, number).cells
        for where in (window, cells):
            rows = np.flatnonzero(where.number >= 0)
            indptr, near = where.neighbours(rows, 30.0)
            for place, row in enumerate(rows):
                found = where.coordinates[near[indptr[place] : indptr[place + 1]]]
                found = sorted(map(tuple, found.tolist()))
                assert len(set(found)) == len(found)
                assert where is window or found == expected[where.number[row]]
                assert set(found) <= set(expected[where.number[row]])
                n_found += where is window and len(found)
        seen |= set(window.number[window.number >= 0].tolist())
    assert seen == set(range(stream.n_cells))
    # Each pair of neighbours is in one block at least.
    assert sum(map(len, expected.values())) / 2 <= n_found <= sum(map(len, expected.values()))


REFUSED = {
    "objectives.masked_genes.enabled=true": "objectives.masked_genes cannot be asked of the family 'totals': its "
    "network has no masked_gene_logits; switch it off (objectives.masked_genes.enabled=false)",
    "sampling.input=pairs": "sampling.input = pairs draws two cells as one input, and the family 'totals' reads one",
    "model.width=wide": "model.width must be a whole number, not 'wide'",
    "model.wdth=3": "model.wdth is not an option; did you mean width",
    "model.family=total": "model.family: There is no family 'total'; known families: ",
    "model.family=3": "model.family must be a text, not 3",
    "family=totals": "family is not an option; did you mean model.family",
    "gene_embeddings.path=there": "gene_embeddings.path is given, and a model of TotalsConfig has no table",
}


@pytest.mark.parametrize(("override", "sentence"), REFUSED.items(), ids=REFUSED)
def test_what_it_cannot_do_is_said_before_the_work(totals_path, corpus, tmp_path, override, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        pretrain(read_config(totals_path, overrides=[override]), corpus.path, tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()


def test_a_family_that_is_fitted_is_not_trained(config_path):
    with pytest.raises(InputError, match="model.family is tissue, which is fitted to whole slides and not trained"):
        read_config(config_path, overrides=["model={family='tissue'}"])


def test_files_without_a_family_are_of_a_spatialformer(config_path):
    config = read_config(config_path)
    assert config.family == "spatialformer"
    table = config.as_table()
    assert table["model"].pop("family") == "spatialformer"
    assert "family" not in table


def test_labels_are_learnt_on_it(totals, corpus, slides, tmp_path):
    model = Totals(TotalsConfig(width=32), Vocabulary.of_genes(corpus.genes), seed=1)
    model.save_pretrained(tmp_path / "model")
    cells = anndata.AnnData(slides[0].X.copy(), obs=slides[0].obs[["split"]], var=slides[0].var)
    cells.obsm["spatial"] = slides[0].obsm["spatial"]
    cells.obs["stripe"] = np.where(cells.obsm["spatial"][:, 1] > 125, "upper", "lower")
    config = FinetuneConfig(method="full", pooling="sum", steps=20, validate_every=5, device="cpu", token_budget=400)
    refused = {
        "pooling": ("cls", "pooling must be one of sum, not 'cls'"),
        "method": (
            "lora",
            "A model of the family 'totals' cannot be adapted by batches of labelled cells (method lora)",
        ),
    }
    for option, (value, sentence) in refused.items():
        other = dataclasses.replace(config, **{option: value})
        with pytest.raises(InputError, match=re.escape(sentence)):
            finetune_labels(tmp_path / "model", cells, "stripe", tmp_path / "tuned", config=other, n_replicates=20)
        assert not (tmp_path / "tuned").exists()
    finetune_labels(tmp_path / "model", cells, "stripe", tmp_path / "tuned", config=config, n_replicates=20)
    predict_labels(cells, tmp_path / "tuned")
    assert (cells.obs["label_pred"].astype(str) == cells.obs["stripe"]).mean() > 0.85


def test_it_is_judged_beside_the_baselines(totals, corpus):
    model = Totals(TotalsConfig(width=32), Vocabulary.of_genes(corpus.genes), seed=1)
    judged = evaluate(model, corpus, options=EvaluationOptions(max_pairs=40, n_replicates=20, radii=(30.0,)))
    assert set(judged.cell_pairs.evaluation.scores["score"]) == {EMBEDDING, RANDOM, *BASELINES}
    assert judged.not_judged == (
        "Masked genes were not judged: the family 'totals' names no hidden genes.",
        "Co-localised genes were not judged: the family 'totals' ranks no pairs of genes.",
    )

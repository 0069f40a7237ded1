"""A SpatialFormer and a multilayer perceptron on the same batches, with the same heads, objectives and judge."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from spaf_data import Corpus, write_corpus
from spaf_model import SpatialFormer, SpatialFormerConfig, SpatialFormerNetwork, TokenBatch
from spaf_train import ObjectivesConfig, SamplingConfig, TrainingModule, vocabulary_from_corpus
from spaf_train.objectives import OBJECTIVES
from spaf_train.pretraining.linear_path import set_linear_path
from spaf_train.stream.loader import BatchStream
from spaf_train.trainer.distributed import Ranks
from spaf_train.trainer.module import encode
from spaf_train.trainer.optim import OptimizerConfig, make_optimizer

ALONE = Ranks(0, 1, torch.device("cpu"))
CONTEXT = {"tissue": "tissue", "condition": "unknown", "species": "unknown", "assay": "unknown"}
PARTS = ("values", "path", "panels", "reconstruction", "projection", "cosine")  # that can be switched off
_WARM_UP = 0.05  # of the time
_BATCHES_HELD_OUT = 12


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An architecture with its switches."""

    architecture: str  # "spatialformer" or "mlp"
    parts: tuple[str, ...] = PARTS
    width: int = 96
    n_layers: int = 1
    hidden: tuple[int, ...] = (512, 256)  # of the perceptron
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    decays: bool = True  # the learning rate, to 0 at the end

    @classmethod
    def of(cls, architecture: str, **changes: Any) -> "Recipe":
        """Return the recipe of an architecture; the perceptron has the rate and decay of the own-tissue network."""
        own = {"learning_rate": 1e-3, "weight_decay": 0.01} if architecture == "mlp" else {}
        return cls(architecture, **{**own, **changes})

    def config(self) -> SpatialFormerConfig:
        """Return the configuration; whatever reads values has them, and the token values alone are part of `values`."""
        on = set(self.parts)
        needs_values = bool(on & {"values", "path", "reconstruction"})
        return SpatialFormerConfig(
            width=self.width,
            n_layers=self.n_layers,
            n_heads=max(self.width // 32, 1),
            mlp_expansion=2,
            conv_kernel=5,
            pair_input="separate",
            max_genes=96,
            colocalization_rank=8,
            embedding_dropout=0.0,
            conv_dropout=0.0,
            mlp_dropout=0.1,
            drop_path=0.0,
            gene_values="pearson" if needs_values else "none",
            linear_path=min(50, self.width) if "path" in on else 0,
            decoder_width=256 if "reconstruction" in on else 0,
            contrast_rank=64 if "projection" in on else 0,
            pair_comparison="cosine" if "cosine" in on else "projection",
        )

    def objectives(self) -> ObjectivesConfig:
        """Return contrast, and reconstruction where it is on."""
        on = {"contrast": True, "reconstruction": "reconstruction" in self.parts}
        tables = {name: objective.Config(enabled=on.get(name, False)) for name, objective in OBJECTIVES.items()}
        return ObjectivesConfig(**tables)

    def sampling(self) -> SamplingConfig:
        """Return patches, as of the starter."""
        table = {"input": "patches", "token_budget": 8192, "panel_min": 0.5 if "panels" in self.parts else 1.0}
        return SamplingConfig(**table)


class Perceptron(SpatialFormerNetwork):
    """All gene values of a cell through hidden layers to its state, where a SpatialFormer has its layers.

    Everything after that, the linear path, heads, objectives and judge, is that of a SpatialFormer.
    """

    def __init__(self, config: SpatialFormerConfig, hidden: tuple[int, ...]) -> None:
        super().__init__(dataclasses.replace(config, n_layers=1))
        self.layers = nn.ModuleList()
        width, parts = int(config.n_tokens or 0), [nn.Dropout(0.1)]
        for size in hidden:
            parts += [nn.Linear(width, size), nn.LayerNorm(size), nn.GELU(), nn.Dropout(0.3)]
            width = size
        self.perceptron = nn.Sequential(*parts, nn.Linear(width, config.width))
        self.embedding = nn.Module()
        self.embedding.tokens = nn.Embedding(1, 1)  # tells the device

    def encode(self, batch: TokenBatch, *, kernel: Any = None) -> torch.Tensor:
        """Return the state of each cell as the one position, (B, 1, D)."""
        assert batch.profile is not None
        return self.finish(self.perceptron(batch.profile).unsqueeze(1), batch)

    def embedder(self, method: str, settings: Any) -> Callable[[TokenBatch], torch.Tensor]:
        """Return `encode`, which is all there is."""
        return lambda batch: self.pool(self.encode(batch), batch, method)


def corpus_of(train: anndata.AnnData, held_out: anndata.AnnData, radius: float, folder: Path) -> Corpus:
    """Write the fitted and the held-out part of a slide as a corpus, in units in which a radius is 30 um."""
    both = anndata.concat([train, held_out])
    both.obs_names_make_unique()
    both.obs["split"] = ["train"] * train.n_obs + ["validation"] * held_out.n_obs
    both.obs["slide"] = "slide"
    for kind, word in CONTEXT.items():
        both.obs[kind] = word
    both.obsm["spatial"] = np.asarray(both.obsm["spatial"], dtype=np.float64)[:, :2] * (30.0 / radius)
    return write_corpus([both], folder, block_cells=512, colocalization_key=None)


@dataclasses.dataclass
class Trained:
    """A model, with the CPU time that its passes took and the held-out losses on the way."""

    model: SpatialFormer
    seconds: float  # forward, backward and optimizer; batches are made outside
    steps: int
    losses: dict[str, float]  # held-out contrast with easy and hard negatives, by second


def train(
    recipe: Recipe,
    corpus: Corpus,
    seconds: float,
    *,
    seed: int,
    looks: tuple[float, ...] = (),
    n_cells: int | None = None,
) -> Trained:
    """Train for so many CPU seconds, and look at the held-out contrast when some of them have passed."""
    torch.set_num_threads(1)
    vocabulary = vocabulary_from_corpus(corpus)
    model = SpatialFormer(recipe.config(), vocabulary, seed=seed)
    if recipe.architecture == "mlp":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.network = Perceptron(model.config, recipe.hidden)
    elif "values" not in recipe.parts:
        model.network.embedding.gene_values = None  # ranks alone; path and decoder keep their values
    objectives = recipe.objectives()
    stream = BatchStream(corpus, model, recipe.sampling(), objectives, split="train", seed=seed)
    plain = dataclasses.replace(recipe.sampling(), panel_min=1.0)
    judged = BatchStream(corpus, model, plain, objectives, split="validation", seed=99)
    set_linear_path(model, stream, ALONE)
    module = TrainingModule(model.network, objectives)
    optimizer = make_optimizer(
        module, OptimizerConfig(learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)
    )
    looks_left, losses, spent, steps = list(looks), {}, 0.0, 0
    while spent < seconds:
        batch = stream.next_step()[0]
        began = time.process_time()
        module.train()
        progress = spent / seconds
        rate = min(1.0, (progress + 1e-3) / _WARM_UP)
        if recipe.decays:
            rate *= 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        torch.manual_seed(batch.seed)
        optimizer.zero_grad(set_to_none=True)
        module(batch, batch.weights(), objectives.factors(progress), 1.0)[0].backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        spent += time.process_time() - began
        steps += 1
        while looks_left and spent >= looks_left[0]:
            losses[f"{looks_left.pop(0):g}"] = held_out_contrast(module, judged)
    model.network.eval()
    return Trained(model, spent, steps, losses)


@torch.no_grad()
def held_out_contrast(module: TrainingModule, judged: BatchStream) -> float:
    """Return the mean over batches of the contrast with easy and with hard negatives."""
    module.eval()
    found = []
    for place, batch in enumerate(judged.one_epoch()):
        if place == _BATCHES_HELD_OUT:
            break
        hidden = encode(module.network, batch.unmasked, batch.parts)
        loss = module.objectives["contrast"].loss(module.network, hidden, batch.targets["contrast"], batch.unmasked)
        found.append(float(loss.counted[0] + loss.counted[1]))
    return float(np.mean(found))


def states_of(model: SpatialFormer, part: anndata.AnnData) -> NDArray[np.float32]:
    """Embed a part of a slide, standardised by its own cells."""
    part = part.copy()
    model.embed(part, min_gene_fraction=0.0, progress=False, **CONTEXT)
    states = np.asarray(part.obsm["X_SpaF"])
    return np.nan_to_num(states)


def macro_f1(
    train_states: NDArray[np.float32], train_labels: NDArray[Any], states: NDArray[np.float32], labels: NDArray[Any]
) -> float:
    """Return the macro-F1, over the classes of both parts, of logistic regression: best of four penalties for all."""
    shared = np.intersect1d(train_labels, labels)
    ours, theirs = np.isin(train_labels, shared), np.isin(labels, shared)
    scores = []
    scaled = [StandardScaler().fit_transform(one) for one in (train_states[ours], states[theirs])]  # each by its part
    for penalty in (0.003, 0.03, 0.3, 3.0):
        fit = LogisticRegression(C=penalty, max_iter=400, class_weight="balanced").fit(scaled[0], train_labels[ours])
        scores.append(f1_score(labels[theirs], fit.predict(scaled[1]), average="macro", labels=shared))
    return float(max(scores))

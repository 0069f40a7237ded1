"""Batches of the family scGPT-spatial, of two slides that measure other genes."""

import pytest
import torch

from spaf_data import write_corpus
from spaf_model import family_of
from spaf_train import BatchStream, read_config, vocabulary_from_corpus

SMALL = [
    "model.width=16", "model.n_layers=1", "model.n_heads=2", "model.dropout=0", "model.n_neighbours=6",
    "objectives.neighbourhood.neighbours=6", "sampling.windows.neighbours=6", "sampling.windows.cells=16",
    "sampling.token_budget=100000",
]  # fmt: skip


@pytest.fixture(scope="session")
def two_panels(slides, tmp_path_factory):
    """24 genes by Xenium, and the first 16 of them by Visium."""
    made = [slides[0].copy(), slides[1][:, :16].copy()]
    for slide in made:
        del slide.obsm["colocalization"]
        slide.uns = {}
    made[1].obs["assay"] = "Visium"
    return write_corpus(made, tmp_path_factory.mktemp("panels") / "corpus", block_cells=40, colocalization_key=None)


@pytest.fixture
def spots(two_panels):
    """Return a function that makes a model and a stream of batches for the preset with some options."""

    def make(*options, split="train"):
        config = read_config("scgpt_spatial", overrides=[*SMALL, *options])
        vocabulary = vocabulary_from_corpus(two_panels, context_dropout=0.0, family=family_of("scgpt_spatial"))
        model = family_of("scgpt_spatial")(config.model, vocabulary, seed=1)
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        model.network.eval()
        stream = BatchStream(two_panels, model, config.sampling, config.objectives, split=split, seed=0)
        for name, objective in stream.asked.items():
            objective.take(objective.prepare(stream, None, None), split)
            assert name
        return model, stream

    return make


@pytest.fixture
def draw_of(two_panels):
    """Return a function that gives the draw behind each batch of an epoch, without the objectives."""
    from spaf_train.stream.window import Draw

    def draws(stream):
        for number in range(stream._n_windows):
            window = stream._read_window(0, number)
            for place, (inputs, _) in enumerate(window.batches):
                yield Draw(
                    window.cells.tokenised.batch(inputs.left),
                    inputs,
                    window.cells,
                    stream.vocabulary,
                    stream.distances,
                    place,
                )

    return draws

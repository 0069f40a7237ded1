"""What each objective has to beat without training, against slow twins."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from spaf_model import SpatialFormer, SpatialFormerConfig
from spaf_train import BatchStream, ObjectivesConfig, SamplingConfig, vocabulary_from_corpus
from spaf_train.evaluation import log_normalize, read_cells
from spaf_train.objectives import OBJECTIVES
from spaf_train.objectives.masked_genes import MaskedGenes, unigram_losses
from spaf_train.objectives.pair_baseline import PairBaseline
from spaf_train.trainer.distributed import Ranks
from spaf_train.trainer.validation import look
from spaf_train.trainer.verdicts import figures_of, spoken

CONFIG = SpatialFormerConfig(width=16, n_layers=1, n_heads=2, conv_kernel=3, colocalization_rank=4)


def streams(corpus, objectives, **sampling):
    model = SpatialFormer(CONFIG if "input" not in sampling else apart(), vocabulary_from_corpus(corpus), seed=0)
    found = {
        split: BatchStream(corpus, model, SamplingConfig(**sampling), objectives, split=split, seed=0)
        for split in ("train", "validation")
    }
    for name, objective in found["train"].asked.items():
        prepared = objective.prepare(found["train"], found["validation"], None)
        for split, stream in found.items():
            if prepared:
                stream.asked[name].take(prepared, split)
    return model, found


def apart():
    return SpatialFormerConfig(
        width=16, n_layers=1, n_heads=2, conv_kernel=3, colocalization_rank=4, pair_input="separate", pair_rank=4
    )


def one_process():
    return Ranks(rank=0, world_size=1, device=torch.device("cpu"))


def test_the_components_are_those_of_log_counts(corpus):
    _, found = streams(corpus, ObjectivesConfig())
    baseline = PairBaseline.fit(found["train"])
    cells = read_cells(corpus, "train", max_cells=10**6, seed=0)
    expression = log_normalize(cells.counts).toarray()
    pca = PCA(baseline.components.shape[1], svd_solver="full").fit(expression)
    stream = found["train"]
    states = baseline.states(stream.all_cells().take(np.arange(len(cells)))).numpy()
    order = np.argsort(stream.all_cells().number)
    expected = pca.transform(expression)
    products = states[order] @ states[order].T
    np.testing.assert_allclose(products, expected @ expected.T, rtol=1e-3, atol=1e-2)


def test_pairs_stand_beside_the_cosine_of_components(corpus):
    model, found = streams(corpus, ObjectivesConfig())
    stream = found["validation"]
    judged = look(model.network, stream.one_epoch(), stream.objectives, one_process())
    labels, cosines = [], []
    for batch in stream.one_epoch():
        labels += batch.targets["pairs"].labels.tolist()
        cosines += batch.targets["pairs"].baseline.tolist()
    figures = figures_of(judged.judgements["pairs"])
    assert figures["baseline"] == "PCA cosine"
    assert figures["baseline_auroc"] == pytest.approx(roc_auc_score(labels, cosines), abs=2e-3)
    assert all(batch.targets["pairs"].baseline is None for batch in found["train"].one_epoch())


def test_contrast_stands_beside_the_cosine_of_components(corpus):
    on = {"contrast": True, "pairs": False, "masked_genes": False, "colocalization": False}
    objectives = ObjectivesConfig(**{name: OBJECTIVES[name].Config(enabled=value) for name, value in on.items()})
    model, found = streams(corpus, objectives, input="patches")
    stream = found["validation"]
    judged = look(model.network, stream.one_epoch(), stream.objectives, one_process())
    near, far = [], []
    for batch in stream.one_epoch():
        kinds = batch.targets["contrast"]
        near += kinds.baseline[kinds.neighbours.triu()].tolist()
        far += kinds.baseline[kinds.easy.triu()].tolist()
    figures = figures_of(judged.judgements["contrast"])
    expected = roc_auc_score([1] * len(near) + [0] * len(far), near + far)
    assert figures["baseline_auroc_easy"] == pytest.approx(expected, abs=2e-3)
    assert figures["baseline"] == "PCA cosine"


def test_hidden_genes_stand_beside_those_not_in_view(corpus):
    model, found = streams(corpus, ObjectivesConfig())
    stream = found["validation"]
    judged = look(model.network, stream.one_epoch(), stream.objectives, one_process())
    shares = np.ones(model.vocabulary.n_tokens) * 0
    shares[model.vocabulary.gene_token_ids] = 1.0
    shares[stream.token_of_gene] += corpus.gene_statistics["n_cells"].reindex(corpus.genes).to_numpy()
    shares /= shares.sum()
    losses = []
    for batch in stream.one_epoch():
        masked, ids, types = batch.targets["masked_genes"], batch.unmasked.ids.numpy(), batch.unmasked.types.numpy()
        hidden = np.zeros(ids.size, dtype=bool)
        hidden[masked.positions.numpy()] = True
        hidden = hidden.reshape(ids.shape)
        for row, column in np.argwhere(hidden):
            of_cell = (types[row] == types[row, column]) & ~hidden[row]
            losses.append(-np.log(shares[ids[row, column]] / (1.0 - shares[ids[row, of_cell]].sum())))
    figures = figures_of(judged.judgements["masked_genes"])
    assert figures["baseline_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert "frequency among genes not in view" in spoken("masked_genes", figures)


def test_the_last_gene_left_is_certain():
    class Tokens:
        ids = torch.tensor([[9, 0, 1, 2, 8]])
        types = torch.ones(1, 5, dtype=torch.int64)

    masked = MaskedGenes(torch.tensor([3]), torch.tensor([2]), torch.tensor([7]))
    shares = torch.tensor([0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0])
    assert float(unigram_losses(Tokens(), masked, shares)[0]) == pytest.approx(0.0, abs=1e-6)


def test_a_model_below_its_baseline_is_said_to_be():
    found = {"learnt": True, "auroc": 0.7, "baseline": "PCA cosine", "baseline_auroc": 0.8}
    assert spoken("pairs", found) == (
        "pairs was learnt, yet PCA cosine does better without training: AUROC 0.700 (chance 0.500), PCA cosine 0.800."
    )

import dataclasses
import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from spaf_data import write_corpus
from spaf_model import (
    InputError,
    Model,
    SpatialFormer,
    SpatialFormerConfig,
    TokenBatch,
    Vocabulary,
    embed_cell_pairs,
    load_model,
)
from spaf_train._record import plain
from spaf_train.evaluation import (
    BASELINES,
    EMBEDDING,
    MODEL,
    RANDOM,
    EvaluationOptions,
    centred_cosine,
    evaluate,
    evaluate_gene_pairs,
    evaluate_masked_genes,
    evaluation_tables,
    judging,
    matched_pairs,
    pair_models,
    pair_rates,
    read_cells,
    score_gene_pairs,
    spatial_tiles,
    with_counts,
)
from spaf_train.evaluation.masked_genes import hide_genes
from spaf_train.pretraining.tissue import TissueRunConfig, pretrain_tissue

OPTIONS = EvaluationOptions(max_pairs=60, n_replicates=40, radii=(20.0, 30.0), max_gene_pairs=3_000)


@pytest.fixture(scope="module")
def model(model_dir):
    return SpatialFormer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def result(model, corpus):
    return evaluate(model, corpus, options=OPTIONS)


@pytest.fixture(scope="module")
def held_out(corpus, model):
    cells = read_cells(corpus, "validation", max_cells=10_000, seed=0)
    return with_counts(cells, corpus, model)


def value(table, score, column):
    return table.set_index("score").loc[score, column]


def test_cells_are_those_of_the_split_each_once(corpus):
    cells = read_cells(corpus, "validation", max_cells=10_000, seed=0)
    blocks = [corpus.read(ref) for ref in corpus.block_refs("validation")]
    expected = np.concatenate([block.coordinates[: block.n_owned] for block in blocks])
    np.testing.assert_array_equal(cells.coordinates, expected.astype(np.float64))
    assert len(np.unique(cells.coordinates, axis=0)) == len(cells)
    dense = cells.counts.toarray()
    first = 0
    for block in blocks:
        for cell in range(block.n_owned):
            row = np.zeros(len(corpus.genes))
            entries = slice(block.indptr[cell], block.indptr[cell + 1])
            row[block.genes[entries]] = block.counts[entries]
            np.testing.assert_array_equal(dense[first], row)
            edges = block.colocalized[block.colocalized_indptr[cell] : block.colocalized_indptr[cell + 1]]
            np.testing.assert_array_equal(cells.edges[cells.edge_indptr[first] : cells.edge_indptr[first + 1]], edges)
            first += 1


def test_fewer_cells_are_whole_blocks_and_the_same_ones_each_time(corpus):
    few = read_cells(corpus, "train", max_cells=50, seed=3)
    assert 50 <= len(few) < 50 + 40
    np.testing.assert_array_equal(few.coordinates, read_cells(corpus, "train", max_cells=50, seed=3).coordinates)


def test_masked_genes_equal_one_cell_at_a_time(model, corpus, held_out, result):
    counts, vocabulary = held_out.counts, model.vocabulary
    tokens = model.tokeniser(counts)
    ranked = tokens.ranked
    of_entry = np.repeat(np.arange(counts.n_cells), counts.n_genes)
    chosen = hide_genes(counts, fraction=0.15, seed=0)
    drawn = set(zip(of_entry[chosen].tolist(), counts.tokens[chosen].tolist(), strict=True))
    of_rank = np.repeat(np.arange(ranked.n_cells), ranked.n_genes)
    hidden = [pair in drawn for pair in zip(of_rank.tolist(), ranked.tokens.tolist(), strict=True)]
    n_cells = corpus.gene_statistics["n_cells"].reindex(corpus.genes).to_numpy() + 1
    p = dict(zip(held_out.token_of_gene.tolist(), (n_cells / n_cells.sum()).tolist(), strict=True))
    right = {name: [] for name in result.masked_genes["score"]}
    surprise = {name: [] for name in right}
    names = list(right)
    for cell in range(ranked.n_cells):
        entries = range(ranked.indptr[cell], ranked.indptr[cell + 1])
        ids = [vocabulary.cls, *tokens.context[cell]]
        ids += [vocabulary.mask if hidden[entry] else ranked.tokens[entry] for entry in entries]
        ids.append(vocabulary.sep)
        batch = TokenBatch(
            torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64), torch.tensor([[len(ids), 0]])
        )
        with torch.inference_mode():
            logits = model.network.masked_gene_logits(model.network.encode(batch))[0].double()
        in_view = {ranked.tokens[entry] for entry in entries if not hidden[entry]}
        unseen = {token: share for token, share in p.items() if token not in in_view}
        for place, entry in enumerate(entries):
            if not hidden[entry]:
                continue
            target = int(ranked.tokens[entry])
            answers = logits[5 + place]
            right[names[0]].append(int(answers.argmax()) == target)
            surprise[names[0]].append(-float(answers.log_softmax(0)[target]))
            right[names[1]].append(max(p, key=p.get) == target)
            surprise[names[1]].append(-np.log(p[target]))
            right[names[2]].append(max(unseen, key=unseen.get) == target)
            surprise[names[2]].append(-np.log(p[target] / sum(unseen.values())))
    for name in names:
        assert value(result.masked_genes, name, "n") == len(right[name])
        assert value(result.masked_genes, name, "accuracy") == pytest.approx(np.mean(right[name]))
        assert value(result.masked_genes, name, "perplexity") == pytest.approx(
            np.exp(np.mean(surprise[name])), rel=1e-4
        )


def test_knowing_what_is_in_view_helps_the_unigram_model(result):
    perplexity = result.masked_genes.set_index("score")["perplexity"]
    assert perplexity["unigram of genes not in view"] < perplexity["unigram"]


def test_gene_pairs_equal_one_cell_at_a_time(model, corpus, held_out):
    cells, tokens = held_out.cells, model.tokeniser(held_out.counts)
    rates = pair_rates(read_cells(corpus, "train", max_cells=10_000, seed=0))
    scored = score_gene_pairs(model, held_out, rates, max_gene_pairs=10**9, seed=0)
    dense = cells.counts.toarray()
    row = 0
    for cell in range(len(cells)):
        genes = np.flatnonzero(dense[cell])
        batch = TokenBatch.from_cells(tokens.ranked, tokens.context, np.array([cell]), model.vocabulary)
        with torch.inference_mode():
            logits = model.network.colocalization_logits(model.network.encode(batch), batch)[0].double().numpy()
        place = {int(token): position for position, token in enumerate(batch.ids[0].tolist())}
        edges = set(map(tuple, cells.edges[cells.edge_indptr[cell] : cells.edge_indptr[cell + 1]].tolist()))
        for a, b in combinations(genes.tolist(), 2):
            assert (scored.cell[row], scored.gene_a[row], scored.gene_b[row]) == (cell, a, b)
            assert scored.colocalized[row] == ((a, b) in edges)
            i, j = place[held_out.token_of_gene[a]], place[held_out.token_of_gene[b]]
            assert scored.scores["model"][row] == pytest.approx(logits[i, j], abs=1e-4)
            assert scored.scores["product of counts"][row] == dense[cell, a] * dense[cell, b]
            assert scored.scores["smaller count"][row] == min(dense[cell, a], dense[cell, b])
            row += 1
    assert row == scored.cell.size
    table, differences = evaluate_gene_pairs(
        scored, spatial_tiles(cells.coordinates, cells.slide), n_replicates=20, seed=0
    )
    for name, values in scored.scores.items():
        assert value(table, name, "auroc") == pytest.approx(roc_auc_score(scored.colocalized, values))
        assert value(table, name, "auprc") == pytest.approx(average_precision_score(scored.colocalized, values))
        assert value(table, name, "auroc_low") < value(table, name, "auroc") < value(table, name, "auroc_high")
    difference = differences.set_index("baseline").loc["smaller count"]
    expected = value(table, "model", "auroc") - value(table, "smaller count", "auroc")
    assert difference["auroc"] == pytest.approx(expected)


def test_drawn_gene_pairs_are_a_sample_whatever_the_label(model, held_out):
    everything = score_gene_pairs(model, held_out, None, max_gene_pairs=10**9, seed=0)
    sample = score_gene_pairs(model, held_out, None, max_gene_pairs=4_000, seed=0)
    assert 3_700 < sample.cell.size < 4_300
    assert sample.colocalized.mean() == pytest.approx(everything.colocalized.mean(), abs=0.03)
    key = {tuple(row): label for *row, label in zip(
        everything.cell, everything.gene_a, everything.gene_b, everything.colocalized, strict=True
    )}  # fmt: skip
    rows = zip(sample.cell, sample.gene_a, sample.gene_b, sample.colocalized, strict=True)
    assert all(key[tuple(row)] == label for *row, label in rows)


def test_rate_of_a_pair_is_a_share_of_the_cells_that_have_both(corpus):
    cells = read_cells(corpus, "train", max_cells=10_000, seed=0)
    rates = pair_rates(cells)
    dense = cells.counts.toarray() > 0
    both = np.triu((dense.T.astype(int) @ dense.astype(int)), 1).sum()
    overall = len(cells.edges) / both
    for a, b in ((0, 6), (3, 4), (2, 20)):
        together = ((cells.edges[:, 0] == a) & (cells.edges[:, 1] == b)).sum()
        n_both = (dense[:, a] & dense[:, b]).sum()
        assert rates[a, b] == rates[b, a] == pytest.approx((together + overall) / (n_both + 1), rel=1e-5)


def test_pairs_equal_a_slow_recomputation(model, corpus, held_out, result):
    cells, tokens = held_out.cells, model.tokeniser(held_out.counts)
    judged = result.cell_pairs
    pairs = matched_pairs(cells.coordinates, cells.slide, radii=OPTIONS.radii, max_pairs=60, seed=0)
    rows = pairs.rows(30.0, "hard")
    scores = []
    for left, right in [
        *zip(pairs.anchor[rows], pairs.neighbour[rows], strict=True),
        *zip(pairs.anchor[rows], pairs.hard[rows], strict=True),
    ]:
        probabilities = []
        for one, other in ((left, right), (right, left)):
            batch = TokenBatch.from_pairs(
                tokens.ranked, tokens.context, np.array([one]), np.array([other]), model.vocabulary
            )
            with torch.inference_mode():
                logits = model.network.pair_logits(model.network.encode(batch))
            probabilities.append(float(logits.softmax(dim=-1)[0, 1]))
        scores.append(np.mean(probabilities))
    scores = np.array(scores)
    labels = np.arange(scores.size) < rows.size
    assert judged.evaluation.interval("model", 30.0, "hard").value == pytest.approx(
        roc_auc_score(labels, scores), abs=1e-3
    )
    point = judged.operating_points
    point = point[(point.radius == 30.0) & (point.negatives == "hard")].iloc[0]
    assert point["specificity"] == pytest.approx((scores[~labels] < 0.5).mean())
    assert point["sensitivity"] == pytest.approx((scores[labels] >= 0.5).mean())
    assert judged.reliability["weight"].sum() == pytest.approx(1.0)
    gaps = judged.reliability.dropna()
    error = (gaps["weight"] * (gaps["probability"] - gaps["observed"]).abs()).sum()
    assert judged.calibration["ece"].iloc[0] == pytest.approx(error)


def test_same_seed_same_figures_and_json(model, corpus, result):
    first, second = (evaluate(model, corpus, options=OPTIONS).as_dict() for _ in range(2))
    for name in ("masked_genes", "colocalization", "cell_pairs"):
        assert json.dumps(first[name]) == json.dumps(second[name])
    assert {"command", "versions", "parameters", "seconds", "peak_rss_mb"} <= set(result.as_dict())
    assert evaluation_tables(result)[0].title.startswith("Masked genes")


def test_baselines_are_fitted_on_training_cells_alone(model, corpus, monkeypatch):
    fitted = {}

    def spy_pca(counts, fit_cells, **options):
        fitted["pca"] = counts[fit_cells].toarray()
        return original_pca(counts, fit_cells, **options)

    def spy_logistic(embedding, pairs, radius, **options):
        named = np.concatenate([pairs.anchor, pairs.neighbour, pairs.hard, pairs.easy])
        fitted["logistic"] = int(named.max())
        return original_logistic(embedding, pairs, radius, **options)

    original_pca, original_logistic = judging.pca_embedding, judging.LogisticPairs
    monkeypatch.setattr(judging, "pca_embedding", spy_pca)
    monkeypatch.setattr(judging, "LogisticPairs", spy_logistic)
    evaluate(model, corpus, options=OPTIONS)
    train = read_cells(corpus, "train", max_cells=10_000, seed=0)
    order = judging.in_one_order(train)
    np.testing.assert_array_equal(fitted["pca"], train.counts[order].toarray())
    assert fitted["logistic"] < len(train)


def test_other_validation_cells_change_no_baseline(slides, tmp_path):
    changed = [slide.copy() for slide in slides]
    rng = np.random.default_rng(0)
    for slide in changed:
        held = np.flatnonzero(slide.obs["split"] == "validation")
        dense = slide.X.toarray()
        dense[held] = rng.poisson(5, (held.size, dense.shape[1]))
        slide.X = dense
    first, second = (
        write_corpus(tables, tmp_path / name, block_cells=40) for name, tables in (("a", slides), ("b", changed))
    )
    # What a baseline is made of: gene frequencies, rates of pairs, training cells.
    np.testing.assert_array_equal(first.gene_statistics["n_cells"], second.gene_statistics["n_cells"])
    one, other = (read_cells(corpus, "train", max_cells=10_000, seed=0) for corpus in (first, second))
    np.testing.assert_array_equal(pair_rates(one), pair_rates(other))
    np.testing.assert_array_equal(one.counts.toarray(), other.counts.toarray())


def test_what_cannot_be_judged_on(model, corpus):
    with pytest.raises(InputError, match="split must not be train"):
        EvaluationOptions(split="train")
    with pytest.raises(ValueError, match="no split 'test'; it has: train, validation"):
        evaluate(model, corpus, options=EvaluationOptions(split="test"))


def test_baselines_of_another_corpus(model, corpus, other_corpus):
    result = evaluate(model, other_corpus, fit_on=corpus, options=OPTIONS)
    assert result.n_fitted_cells == len(read_cells(corpus, "train", max_cells=10_000, seed=0))
    assert result.n_cells == len(read_cells(other_corpus, "validation", max_cells=10_000, seed=0))


def test_contexts_that_the_model_does_not_know_are_unknown(corpus, caplog):
    small = Vocabulary.build(corpus.genes, scale=np.ones(len(corpus.genes)), tissue=("Breast",), species=("Human",))
    config = SpatialFormerConfig(width=16, n_layers=1, n_heads=2, conv_kernel=3, colocalization_rank=4)
    evaluate(SpatialFormer(config, small, seed=0), corpus, options=OPTIONS)
    assert "does not know the tissue 'Lung' of slide 'second'" in caplog.text
    with pytest.raises(InputError, match="knows no tissue 'Brain'"):
        evaluate(SpatialFormer(config, small, seed=0), corpus, options=OPTIONS, context={"tissue": "Brain"})


def test_masked_genes_need_no_neighbours(model, held_out, corpus):
    few = held_out.take(np.arange(5))
    table = evaluate_masked_genes(
        model, few, spatial_tiles(np.zeros((5, 2))), np.ones(len(corpus.genes)), fraction=0.5, n_replicates=5, seed=1
    )
    assert (table["n"] > 0).all()


def test_model_and_corpus_by_path(model_dir, corpus):
    result = evaluate(model_dir, corpus.path, options=EvaluationOptions(max_pairs=20, n_replicates=4))
    assert result.record["parameters"]["model"] == str(model_dir)


def test_a_model_that_reads_cells_apart_reads_each_once(separate, corpus, monkeypatch):
    read = []

    def spy(self, cells, **options):
        read.append(cells.n_cells)
        return Model.embed_counts(self, cells, **options)

    monkeypatch.setattr(SpatialFormer, "embed_counts", spy)
    judged = evaluate(separate, corpus, options=OPTIONS).cell_pairs
    cells = read_cells(corpus, "validation", max_cells=10_000, seed=0)
    # Once for the pairs and their embedding, and once by a model with random weights.
    pairs = pair_models.judged_pairs(cells, OPTIONS, corpus.distances)
    named = np.unique(np.concatenate([pairs.anchor, pairs.neighbour, pairs.hard, pairs.easy]))
    assert read == [int((named >= 0).sum())] * 2

    tokens = separate.tokeniser(with_counts(cells, corpus, separate).counts)
    pairs = matched_pairs(cells.coordinates, cells.slide, radii=OPTIONS.radii, max_pairs=60, seed=0)
    rows = pairs.rows(30.0, "easy")
    left = np.concatenate([pairs.anchor[rows]] * 2)
    right = np.concatenate([pairs.neighbour[rows], pairs.easy[rows]])
    expected = embed_cell_pairs(
        separate.network, separate.vocabulary, tokens.ranked, tokens.context, left, right
    ).probabilities
    auroc = roc_auc_score(np.arange(right.size) < rows.size, expected)
    assert judged.evaluation.interval("model", 30.0, "easy").value == pytest.approx(auroc, abs=1e-3)


def test_a_trained_pair_network_stands_beside_the_model(result):
    scores = result.cell_pairs.evaluation.scores
    assert set(scores["score"]) == {MODEL, EMBEDDING, RANDOM, *BASELINES}
    baselines = result.cell_pairs.evaluation.differences.query("score == 'model'")["baseline"]
    assert set(baselines) == {RANDOM, *BASELINES}


def test_pairs_do_not_depend_on_how_many_cells_are_judged_for_their_genes(model, corpus, result):
    few = evaluate(model, corpus, options=dataclasses.replace(OPTIONS, max_cells=30))
    assert few.n_cells < result.n_cells
    pd.testing.assert_frame_equal(few.cell_pairs.evaluation.scores, result.cell_pairs.evaluation.scores)


@pytest.fixture(scope="module")
def tissue_dir(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tissue")
    pretrain_tissue(TissueRunConfig(preset="neighbours"), corpus.path, folder / "run")
    return folder / "run" / "model"


def test_a_family_that_names_no_genes_is_judged_by_its_embedding(tissue_dir, corpus):
    result = evaluate(tissue_dir, corpus, options=OPTIONS)
    assert result.masked_genes is None
    assert result.gene_pairs is None
    assert result.not_judged == (
        "Masked genes were not judged: the family 'tissue' names no hidden genes.",
        "Co-localised genes were not judged: the family 'tissue' ranks no pairs of genes.",
    )
    scores = result.cell_pairs.evaluation.scores
    assert set(scores["score"]) == {EMBEDDING, RANDOM, *BASELINES}
    assert result.cell_pairs.operating_points.empty
    assert json.loads(json.dumps(plain(result.as_dict())))["masked_genes"] is None
    assert [table.title.split()[0] for table in evaluation_tables(result)] == ["Neighbouring", "Neighbouring"]


def test_the_embedding_judged_is_that_of_the_whole_held_out_slides(tissue_dir, corpus, slides):
    model = load_model(tissue_dir)
    judged = evaluate(model, corpus, options=OPTIONS).cell_pairs.evaluation
    known = [slide[slide.obs["split"] != "gap"].copy() for slide in slides]  # a corpus has no cell of the gap
    model.embed(known)
    held = [slide[slide.obs["split"] == "validation"] for slide in known]
    states = np.concatenate([slide.obsm["X_SpaF"] for slide in held])
    xy = np.concatenate([slide.obsm["spatial"] for slide in held]).astype(np.float32).astype(np.float64)
    name = np.concatenate([slide.obs["slide"].astype(str) for slide in held])
    pairs = matched_pairs(xy, name, radii=OPTIONS.radii, max_pairs=60, seed=0)
    rows = pairs.rows(30.0, "easy")
    used = np.unique(np.concatenate([pairs.anchor, pairs.neighbour, pairs.hard, pairs.easy]))
    score = centred_cosine(states, name, used[used >= 0])
    left = np.concatenate([pairs.anchor[rows]] * 2)
    right = np.concatenate([pairs.neighbour[rows], pairs.easy[rows]])
    auroc = roc_auc_score(np.arange(right.size) < rows.size, score(left, right))
    assert judged.interval(EMBEDDING, 30.0, "easy").value == pytest.approx(auroc, abs=1e-3)


def test_long_cells_are_judged_on_the_genes_that_are_read(model_dir, corpus):
    whole = SpatialFormer.from_pretrained(model_dir)
    model = SpatialFormer(dataclasses.replace(whole.config, max_genes=6), whole.vocabulary, seed=0)
    cells = with_counts(read_cells(corpus, "validation", max_cells=10_000, seed=0), corpus, model)
    hidden = np.ones(cells.counts.tokens.size, dtype=bool)
    said = model.name_hidden_genes(cells.counts, hidden)
    read = np.bincount(np.repeat(np.arange(len(cells)), cells.counts.n_genes), weights=said.read)
    np.testing.assert_array_equal(read, np.minimum(cells.counts.n_genes, 6))
    assert (said.named[said.read] >= 0).all()
    assert (said.named[~said.read] == -1).all()
    assert np.isnan(said.log_probability[~said.read]).all()
    scored = score_gene_pairs(model, cells, None, max_gene_pairs=10**9, seed=0)
    assert scored.cell.size == (read * (read - 1) // 2).sum()

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaf_model import CONTEXT_KINDS, InputError, Vocabulary
from spaf_train import BatchStream, ObjectivesConfig, SamplingConfig
from spaf_train.objectives import PairsConfig

CELLS_ONLY = ObjectivesConfig(pairs=PairsConfig(enabled=False))


def content(batch):
    """What a batch is, as something that can be compared and counted."""
    tensors = [batch.unmasked.ids, batch.unmasked.types, batch.masked.ids]
    tensors += [
        batch.targets["masked_genes"].positions,
        batch.targets["colocalization"].positions,
        batch.targets["colocalization"].targets,
    ]
    if "pairs" in batch.targets:
        tensors.append(batch.targets["pairs"].labels)
    return (batch.name, batch.seed, *(tensor.numpy().tobytes() for tensor in tensors))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    world_size=st.sampled_from([2, 3, 4]),
    steps=st.integers(1, 6),
    thinning=st.sampled_from([0.0, 0.4]),
)
def test_ranks_share_the_stream_of_one_process(make_stream, seed, world_size, steps, thinning):
    options = {"seed": seed, "batches_per_step": 12, "thinning": thinning, "token_budget": 3000}
    alone = make_stream(**options)
    ranks = [make_stream(rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    for _ in range(steps):
        expected = [content(batch) for batch in alone.next_step()]
        shares = [[content(batch) for batch in stream.next_step()] for stream in ranks]
        assert {len(share) for share in shares} == {12 // world_size}
        assert sorted(batch for share in shares for batch in share) == sorted(expected)
        assert all(stream.state_dict() == alone.state_dict() for stream in ranks)


@pytest.mark.parametrize("world_size", [1, 2])
def test_resumed_stream_goes_on_with_the_same_batches(make_stream, world_size):
    for stopped_after in (0, 1, 7, 23):
        stream = make_stream(batches_per_step=2, token_budget=2000, context_dropout=0.2)
        for _ in range(stopped_after):
            stream.next_step()
        state = stream.state_dict()
        expected = [content(batch) for _ in range(5) for batch in stream.next_step()]
        resumed = []
        for rank in range(world_size):
            other = make_stream(
                batches_per_step=2, token_budget=2000, context_dropout=0.2, rank=rank, world_size=world_size
            )
            other.load_state_dict(state)
            resumed += [content(batch) for _ in range(5) for batch in other.next_step()]
        assert sorted(resumed) == sorted(expected)


def test_an_epoch_has_every_positive_pair_once(make_stream, corpus):
    stream = make_stream()
    n_positive = sum(ref.n_pairs for ref in corpus.block_refs("train"))
    labels = torch.cat([batch.targets["pairs"].labels for batch in stream.one_epoch()])
    assert int(labels.sum()) == n_positive
    steps = 0
    while stream.epoch == 0:
        stream.next_step()
        steps += 1
    # The step that opens the next epoch was counted too.
    assert steps - 1 == sum(1 for _ in stream.one_epoch())


def test_epochs_differ_and_seeds_differ(make_stream):
    first, second = (next(make_stream().one_epoch(epoch)) for epoch in (0, 1))
    assert content(first) != content(second)
    assert content(first) == content(next(make_stream().one_epoch(0)))
    assert content(first) != content(next(make_stream(seed=1).one_epoch(0)))


def test_batches_stay_within_the_token_budget_and_group_lengths(make_stream):
    lengths = []
    for batch in make_stream(token_budget=700).one_epoch():
        assert batch.unmasked.ids.numel() <= 700
        lengths.append(batch.unmasked.lengths.sum(dim=1).float())
    within = torch.stack([length.std(unbiased=False) for length in lengths if length.numel() > 1]).mean()
    assert within < 0.5 * torch.cat(lengths).std()


def test_tokens_are_those_of_the_cells(make_stream, corpus, vocabulary):
    """Every sequence of single cells is the ranked genes of a cell, by a slow look at the block."""
    stream = make_stream(input="cells", objectives=CELLS_ONLY)
    expected = set()
    scale = vocabulary.scale
    for ref in corpus.block_refs("train"):
        block = corpus.read(ref)
        context = [vocabulary.context_id(kind, corpus.slides[block.slide][kind]) for kind in CONTEXT_KINDS]
        for cell in range(block.n_owned):
            entries = slice(block.indptr[cell], block.indptr[cell + 1])
            tokens = [vocabulary.tokens.index(corpus.genes[gene]) for gene in block.genes[entries]]
            ratio = {t: np.float32(c) / scale[t] for t, c in zip(tokens, block.counts[entries], strict=True)}
            ranked = sorted(tokens, key=lambda token: (-ratio[token], token))
            expected.add((vocabulary.cls, *context, *ranked, vocabulary.sep))
    found = []
    for batch in stream.one_epoch():
        for ids, lengths in zip(batch.unmasked.ids.tolist(), batch.unmasked.lengths.tolist(), strict=True):
            found.append(tuple(ids[: lengths[0]]))
        assert "pairs" not in batch.targets
    assert len(found) == sum(ref.n_owned for ref in corpus.block_refs("train"))
    assert set(found) == expected


def test_thinning_removes_transcripts_and_never_adds_genes(make_stream):
    def genes(stream):
        return sum(batch.unmasked.lengths.sum().item() for batch in stream.one_epoch())

    whole, thinned = genes(make_stream()), genes(make_stream(thinning=0.8))
    assert 0.4 * whole < thinned < 0.95 * whole


def test_context_dropout_gives_unknown(make_stream, vocabulary):
    unknown = torch.tensor([vocabulary.context_id(kind, "unknown") for kind in CONTEXT_KINDS])
    plain = torch.cat([batch.unmasked.ids[:, 1:5] for batch in make_stream().one_epoch()])
    assert not (plain == unknown).any()
    dropped = torch.cat([batch.unmasked.ids[:, 1:5] for batch in make_stream(context_dropout=0.3).one_epoch()])
    assert (dropped == unknown).float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_another_context_needs_no_other_tokens(make_stream, monkeypatch):
    quick = [content(batch) for batch in make_stream(context_dropout=0.5).one_epoch()]
    monkeypatch.setattr("spaf_train.stream.loader.InContext", type("Never", (), {}))
    assert [content(batch) for batch in make_stream(context_dropout=0.5).one_epoch()] == quick


def test_max_genes_cuts_cells(make_stream):
    for batch in make_stream(max_genes=4).one_epoch():
        assert int(batch.unmasked.lengths.max()) <= 4 + 6


def test_validation_inputs_are_bounded_and_the_same_each_time(make_stream):
    stream = make_stream(split="validation", token_budget=1000)
    first = list(stream.one_epoch(max_inputs=90))
    assert 0 < sum(batch.unmasked.ids.shape[0] for batch in first) <= 90
    assert [content(batch) for batch in first] == [content(batch) for batch in stream.one_epoch(max_inputs=90)]


def test_more_ranks_than_blocks_share_every_batch(make_stream, corpus):
    world_size = len(corpus.block_refs("validation")) + 3
    options = {"split": "validation", "batches_per_step": world_size, "token_budget": 1000}
    alone = make_stream(**options)
    shares = [make_stream(rank=rank, world_size=world_size, **options).next_step() for rank in range(world_size)]
    assert {len(share) for share in shares} == {1}
    assert [content(share[0]) for share in shares] == [content(batch) for batch in alone.next_step()]


def test_an_epoch_over_changing_numbers_of_ranks_has_every_sample_once(make_stream):
    """Resume on another number of ranks, twice within an epoch."""
    options = {"batches_per_step": 4, "token_budget": 1200}
    expected = [content(batch) for batch in make_stream(**options).one_epoch()]
    found, state = [], {"epoch": 0, "window": 0, "batch": 0}
    n_steps = len(expected) // 4
    assert n_steps > 6
    for world_size, steps in ((1, 2), (4, 3), (2, n_steps - 5)):
        ranks = [make_stream(rank=rank, world_size=world_size, **options) for rank in range(world_size)]
        for stream in ranks:
            stream.load_state_dict(state)
            found += [content(batch) for _ in range(steps) for batch in stream.next_step()]
        state = ranks[0].state_dict()
        assert all(stream.state_dict() == state for stream in ranks)
    assert len(set(found)) == len(found) == 4 * n_steps
    assert set(found) == set(expected[: 4 * n_steps])


def test_skipped_shards_are_never_opened_and_the_others_are_whole(corpus, vocabulary, read_by, monkeypatch):
    refs = corpus.block_refs("train")
    gone = refs[0].shard
    read = corpus.read
    opened = []
    monkeypatch.setattr(corpus, "read", lambda ref: opened.append(ref.shard) or read(ref))
    sampling = SamplingConfig(window_blocks=1, token_budget=600)
    arguments = (corpus, read_by(vocabulary), sampling, ObjectivesConfig())
    stream = BatchStream(*arguments, split="train", seed=0, skip_shards=[gone])
    labels = torch.cat([batch.targets["pairs"].labels for batch in stream.one_epoch()])
    assert int(labels.sum()) == sum(ref.n_pairs for ref in refs if ref.shard != gone) > 0
    while stream.epoch == 0:
        stream.next_step()
    assert gone not in opened
    # The batches of the blocks that are left are those of the whole corpus.
    whole = {content(batch) for batch in BatchStream(*arguments, split="train", seed=0).one_epoch()}
    assert {content(batch) for batch in stream.one_epoch()} < whole
    with pytest.raises(InputError, match="Every shard of the split 'train' is bad"):
        BatchStream(*arguments, split="train", seed=0, skip_shards={ref.shard for ref in refs})


def test_steps_that_ranks_cannot_share_are_refused(make_stream):
    with pytest.raises(InputError, match=r"batches_per_step \(3\).*processes \(2\)"):
        make_stream(batches_per_step=3, world_size=2)


def test_genes_of_another_model_are_refused(corpus, read_by):
    foreign = Vocabulary.build(["X1", "X2", "X3"], scale=[1.0, 1.0, 1.0])
    with pytest.raises(InputError):
        BatchStream(corpus, read_by(foreign), SamplingConfig(), ObjectivesConfig(), split="train", seed=0)


def test_a_corpus_without_pairs_is_refused(corpus, make_stream, monkeypatch):
    stream = make_stream()
    read = corpus.read
    none = np.zeros((0, 2), np.int32)
    monkeypatch.setattr(stream.corpus, "read", lambda ref: dataclasses.replace(read(ref), positive_pairs=none))
    with pytest.raises(InputError, match="no pair of neighbouring cells"):
        stream.next_step()

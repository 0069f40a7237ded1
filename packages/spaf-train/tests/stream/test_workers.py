import dataclasses

import pytest
import torch

from spaf_data import write_corpus
from spaf_train.stream.loader import BadShardError, BatchStream
from spaf_train.stream.workers import WorkerStream

STEP = {"batches_per_step": 2, "token_budget": 2000}


def tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        return [tensor for field in dataclasses.fields(value) for tensor in tensors(getattr(value, field.name))]
    return []


def assert_same(steps, others):
    for batches, expected in zip(steps, others, strict=True):
        assert [batch.name for batch in batches] == [batch.name for batch in expected]
        assert [batch.seed for batch in batches] == [batch.seed for batch in expected]
        for batch, other in zip(batches, expected, strict=True):
            assert len(tensors(batch)) > 5
            assert all(torch.equal(a, b) for a, b in zip(tensors(batch), tensors(other), strict=True))


def test_workers_build_the_steps_of_the_stream_in_its_order(make_stream):
    plain = make_stream(**STEP)
    one_epoch = 0
    while plain.epoch == 0:
        plain.next_step()
        one_epoch += 1
    plain = make_stream(**STEP)
    ahead = WorkerStream(make_stream(**STEP), 2)
    for _ in range(one_epoch + 1):  # into the second epoch
        assert ahead.state_dict() == plain.state_dict()
        assert_same([ahead.next_step()], [plain.next_step()])
    # The place is that of the next step, however far ahead the workers are, and any stream goes on from it.
    place = ahead.state_dict()
    assert place == plain.state_dict()
    again = WorkerStream(make_stream(**STEP), 1)
    again.load_state_dict(place)
    expected = plain.next_step()
    assert_same([again.next_step(), ahead.next_step()], [expected, expected])


def test_a_shard_that_is_damaged_is_named_as_without_workers(slides, vocabulary, read_by, make_stream, tmp_path):
    corpus = write_corpus(slides, tmp_path / "corpus", block_cells=40)
    plain = make_stream()
    for ref in corpus.block_refs("train"):
        path = corpus.path / ref.shard
        data = bytearray(path.read_bytes())
        data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
        path.write_bytes(data)

    def take_all(stream):
        for _ in range(50):
            stream.next_step()

    def error(stream) -> str:
        with pytest.raises(BadShardError) as caught:
            take_all(stream)
        return str(caught.value)

    def stream() -> BatchStream:
        model = read_by(vocabulary)
        return BatchStream(corpus, model, plain.sampling, plain.objectives, split="train", seed=0)

    assert error(WorkerStream(stream(), 1)) == error(stream())

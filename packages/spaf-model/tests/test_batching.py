import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaf_model import InputError, token_budget_batches


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=60), budget=st.integers(1, 200))
def test_each_sequence_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_budget_batches(lengths, budget)
    positions = np.concatenate([np.zeros(0, dtype=int), *batches])
    assert sorted(positions.tolist()) == list(range(len(lengths)))
    ordered = [lengths[position] for position in positions]
    assert ordered == sorted(lengths)
    for position, batch in enumerate(batches):
        longest = max(lengths[sequence] for sequence in batch)
        assert batch.size == 1 or longest * batch.size <= budget
        if position + 1 < len(batches):
            # Nothing is left on the table: the first of the next batch would not have fitted.
            assert (batch.size + 1) * lengths[batches[position + 1][0]] > budget


def test_no_sequences() -> None:
    assert token_budget_batches([], 10) == []


def test_budget_must_be_positive() -> None:
    with pytest.raises(InputError, match="budget"):
        token_budget_batches([1], 0)

import math

import pytest
import torch

from spaf_model.dropout import draw_mask
from spaf_model.explicit_attention import explicit_attention

SCALE = 0.5


def inputs(n_queries: int) -> tuple[torch.Tensor, ...]:
    """Queries, keys, values, bias and mask, in double precision; two keys of the second cell are padding."""
    generator = torch.Generator().manual_seed(2)
    q, k, v = torch.randn(3, 2, 3, 7, 4, dtype=torch.float64, generator=generator).unbind(0)
    bias = torch.randn(3, n_queries, 7, dtype=torch.float64, generator=generator)
    mask = torch.arange(7) < torch.tensor([[7], [5]])
    return q[:, :, :n_queries].clone().requires_grad_(), k.requires_grad_(), v.requires_grad_(), bias, mask


def plain(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor,
    factors: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """The formula, step by step, with what each weight is multiplied by after softmax."""
    scores = (q @ k.transpose(-1, -2) * SCALE + bias).masked_fill(~mask[:, None, None], -math.inf)
    return (scores.softmax(dim=-1) * factors) @ v


@pytest.mark.parametrize("n_queries", [7, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_values_and_gradients_are_those_of_the_formula(n_queries: int, dropout: float) -> None:
    q, k, v, bias, mask = inputs(n_queries)
    factors: torch.Tensor | float = 1.0
    if dropout:
        torch.manual_seed(0)
        kept = torch.empty((2, 3, n_queries, 7), dtype=torch.uint8)
        chances = [draw_mask(cell, dropout) for cell in kept]
        factors = kept.double() / chances[0]
        assert not bool(factors.all())
    torch.manual_seed(0)
    y = explicit_attention(q, k, v, bias, mask, scale=SCALE, dropout=dropout)
    expected = plain(q, k, v, bias, mask, factors)
    torch.testing.assert_close(y, expected)
    toward = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad(y, (q, k, v), toward)
    for one, other in zip(found, torch.autograd.grad(expected, (q, k, v), toward), strict=True):
        torch.testing.assert_close(one, other)


def test_no_mask_is_no_padding() -> None:
    q, k, v, bias, _ = inputs(7)
    y = explicit_attention(q, k, v, bias, None, scale=SCALE, dropout=0.0)
    torch.testing.assert_close(y, plain(q, k, v, bias, torch.ones(2, 7, dtype=torch.bool)))


def test_no_cells_are_no_error() -> None:
    q, k, v, bias, mask = inputs(7)
    y = explicit_attention(q[:0], k[:0], v[:0], bias, mask[:0], scale=SCALE, dropout=0.1)
    assert y.shape == (0, 3, 7, 4)
    y.sum().backward()

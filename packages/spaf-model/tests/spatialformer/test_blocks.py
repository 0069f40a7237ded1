import pytest
import torch

from spaf_model.kernels import AttentionBias, KernelChoice
from spaf_model.spatialformer.blocks import DropPath
from spaf_model.spatialformer.sequences import SequenceContext

LENGTHS = [4, 2, 3, 4, 1, 4, 4, 3]


def context(mask: torch.Tensor | None, n_cells: int) -> SequenceContext:
    positions = None if mask is None else mask.reshape(-1).nonzero().squeeze(1)
    bias = AttentionBias(2, 4, mask, device=torch.device("cpu"))
    return SequenceContext(mask, positions, (n_cells, 4), bias, KernelChoice("explicit", "test"))


def cell_means(x: torch.Tensor, cells: torch.Tensor | None) -> torch.Tensor:
    """A branch that reads each cell by itself, its real positions alone."""
    lengths = torch.tensor(LENGTHS)
    lengths = lengths if cells is None else lengths[cells]
    mask = torch.arange(4) < lengths[:, None]
    return x * ((x * mask.unsqueeze(-1)).sum(dim=1) / lengths[:, None]).unsqueeze(1)


@pytest.mark.parametrize("by_cell", [False, True])
def test_branches_are_left_out_for_whole_cells_and_scaled_up_for_the_others(by_cell: bool) -> None:
    x = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = cell_means(x, None) / 0.6
    toward = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(expected, x, toward, retain_graph=True)
    drop_path = DropPath(0.4).train()
    n_kept = 0
    for seed in range(40):
        torch.manual_seed(seed)
        y = drop_path(x, cell_means, by_cell=by_cell)
        kept = y.detach().flatten(1).abs().sum(dim=1) > 0
        n_kept += int(kept.sum())
        torch.testing.assert_close(y[kept], expected[kept])
        assert not bool(y[~kept].any())
        (found,) = torch.autograd.grad(y, x, toward)
        torch.testing.assert_close(found, gradient * kept[:, None, None])
    assert abs(n_kept / 320 - 0.6) < 0.11  # four standard deviations


def test_what_is_left_out_is_not_computed() -> None:
    seen = []

    def branch(x: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        seen.append(x.shape[0])
        return x

    torch.manual_seed(0)
    for _ in range(20):
        DropPath(0.9).train()(torch.ones(4, 4, 3), branch, by_cell=True)
    assert min(seen) == 0
    assert max(seen) < 4


def test_nothing_is_left_out_in_evaluation() -> None:
    x = torch.ones(4, 4, 3)
    assert DropPath(0.9).eval()(x, lambda x, _: x, by_cell=True) is x


def test_some_cells_of_a_context_are_a_batch_of_their_own() -> None:
    mask = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    cells = torch.tensor([1, 3, 4])
    taken = context(mask, 8).take(cells)
    alone = context(mask[cells], 3)
    assert taken.shape == alone.shape
    assert torch.equal(taken.mask, alone.mask)  # type: ignore[arg-type]
    assert torch.equal(taken.positions, alone.positions)  # type: ignore[arg-type]
    for padded in (False, True):
        one, other = (c.bias.dense(padded=padded, dtype=torch.float32) for c in (taken, alone))
        assert torch.equal(one, other)

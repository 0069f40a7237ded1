import pytest
import torch

from spaf_model.dropout import Dropout, draw_mask


def drawn(shape: tuple[int, ...], probability: float) -> tuple[torch.Tensor, float]:
    mask = torch.empty(shape, dtype=torch.uint8)
    return mask, draw_mask(mask, probability)


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.9])
def test_elements_are_dropped_independently_at_their_rate(probability: float) -> None:
    torch.manual_seed(0)
    mask, kept = drawn((3, 101, 999), probability)
    assert mask.unique().tolist() == [0, 1]
    assert kept == pytest.approx(1 - probability, abs=2**-17)
    flat = mask.flatten().double()
    n = flat.numel()
    spread = (kept * (1 - kept) / n) ** 0.5
    assert abs(float(flat.mean()) - kept) < 4 * spread
    for lag in (1, 2, 3, 4, 8):  # neighbours come from the same random number
        together = float((flat[:-lag] * flat[lag:]).mean())
        assert abs(together - kept**2) < 5 * spread


def test_all_four_draws_of_a_number_are_used() -> None:
    torch.manual_seed(0)
    mask, _ = drawn((4_000, 4), 0.5)
    share = mask.double().mean(dim=0)
    assert bool(((share - 0.5).abs() < 0.04).all()), share


@pytest.mark.parametrize("shape", [(0, 5), (1,), (7, 3)])
def test_any_shape_can_be_drawn(shape: tuple[int, ...]) -> None:
    mask, _ = drawn(shape, 0.5)
    assert set(mask.flatten().tolist()) <= {0, 1}


def test_equal_seeds_give_equal_masks() -> None:
    torch.manual_seed(5)
    first, _ = drawn((10, 10), 0.4)
    torch.manual_seed(5)
    assert torch.equal(drawn((10, 10), 0.4)[0], first)


def test_the_mean_and_the_gradient_are_kept() -> None:
    torch.manual_seed(0)
    x = torch.ones(200, 500, requires_grad=True)
    y = Dropout(0.25)(x)
    y.sum().backward()
    assert float(y.detach().mean()) == pytest.approx(1.0, abs=0.01)
    assert y.detach().unique().tolist() == pytest.approx([0.0, 4 / 3])
    torch.testing.assert_close(x.grad, y.detach())


def test_nothing_is_dropped_in_evaluation_or_at_zero() -> None:
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x

import numpy as np
import torch
from scipy import stats

from spaf_model.scgpt_spatial import CountOutput, ScGPTSpatialConfig

CONFIG = ScGPTSpatialConfig(n_tokens=9, n_technologies=2, width=16, n_layers=1, n_heads=2)


def test_the_likelihood_is_that_of_scipy() -> None:
    torch.manual_seed(0)
    output = CountOutput(CONFIG)
    with torch.no_grad():
        output.log_inverse_dispersion.normal_(std=2.0)
    ids = torch.tensor([3, 5, 8])
    log_means = torch.tensor([[0.3, -2.0, 4.0], [1.0, 6.0, -5.0]])
    counts = torch.tensor([[0.0, 1.0, 60.0], [3.0, 0.0, 0.0]])
    found = output.loss(log_means, ids, counts).detach().numpy()
    r = output.log_inverse_dispersion[ids].exp().detach().double().numpy()
    means = log_means.double().exp().numpy()
    expected = -stats.nbinom.logpmf(counts.numpy(), r, r / (r + means))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


def test_means_are_counts_of_the_cell_times_rates() -> None:
    output = CountOutput(CONFIG)
    rates = torch.tensor([0.0, 0.2, 0.3, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    output.start_from(rates)
    with torch.no_grad():
        assert output.technology_scale is not None
        output.technology_scale.copy_(torch.tensor([0.0, np.log(2.0)]))
    numbers = torch.zeros(2, 3)
    means = output.log_means(numbers, torch.tensor([1, 2, 3]), torch.tensor([10.0, 100.0]), torch.tensor([0, 1]))
    np.testing.assert_allclose(means.detach().exp().numpy(), [[2, 3, 5], [40, 60, 100]], rtol=1e-5)
    assert output.log_rate[0] == 0.0  # of a gene whose rate is not known


def test_no_technologies_no_scale() -> None:
    output = CountOutput(ScGPTSpatialConfig(n_tokens=9, n_technologies=0, width=16, n_layers=1, n_heads=2))
    assert output.technology_scale is None
    means = output.log_means(torch.zeros(1, 1), torch.tensor([[4]]), torch.tensor([7.0]), torch.tensor([-1]))
    np.testing.assert_allclose(means.detach().exp().numpy(), [[7.0]], rtol=1e-6)

"""Experts: what is computed, what is counted, how the load is balanced, and what the report says."""

import dataclasses

import numpy as np
import pytest
import torch

from spaf_model import InputError
from spaf_model.family import StepStatistics
from spaf_model.scgpt_spatial import ExpertMixture, RoutingReport, ScGPTSpatialConfig, SingleExpert, TokensToDecode
from spaf_model.scgpt_spatial.experts import count_routes, token_decoder

CONFIG = ScGPTSpatialConfig(
    n_tokens=9, n_technologies=2, width=16, n_layers=1, n_heads=2, n_experts=4, n_active=2, balance_rate=0.05
)


@pytest.fixture
def tokens() -> TokensToDecode:
    generator = torch.Generator().manual_seed(0)
    return TokensToDecode(
        states_ND=torch.randn(200, 16, generator=generator) + 0.5,
        cells_N=torch.arange(200) % 5,
        cell_states_BD=torch.randn(5, 16, generator=generator),
        technologies_B=torch.tensor([0, 1, 0, 1, 1]),
        technology_states_BD=torch.randn(5, 16, generator=generator),
    )


def mixture(**options: object) -> ExpertMixture:
    torch.manual_seed(1)
    decoder = token_decoder(dataclasses.replace(CONFIG, **options))  # type: ignore[arg-type]
    assert isinstance(decoder, ExpertMixture)
    return decoder


def test_one_expert_has_no_router() -> None:
    assert isinstance(token_decoder(dataclasses.replace(CONFIG, n_experts=1)), SingleExpert)


def test_experts_compute_what_is_sent_to_them_and_nothing_else(tokens: TokensToDecode) -> None:
    decoder = mixture()
    seen: list[int] = []
    for expert in decoder.experts:
        expert.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    decoder.decode(tokens)
    assert sum(seen) == 2 * 200
    routes = decoder.routes(tokens)
    assert seen == [int((routes.chosen == number).sum()) for number in range(4)]
    torch.testing.assert_close(routes.weights.sum(dim=1), torch.ones(200))


def test_tokens_of_a_cell_go_together_where_cells_are_routed(tokens: TokensToDecode) -> None:
    chosen = mixture(routing="cell").routes(tokens).chosen
    for cell in range(5):
        assert len({tuple(row) for row in chosen[tokens.cells_N == cell].tolist()}) == 1


def test_counts_and_the_bias_that_balances(tokens: TokensToDecode) -> None:
    decoder = mixture(balance_rate=0.01).train()
    assert isinstance(decoder, StepStatistics)
    assert decoder.selection_bias is not None
    decoder.gather_statistics()
    decoder.move_statistics(decoder.gathered_statistics())
    assert not decoder.selection_bias.any()
    weights = decoder.routes(tokens).weights
    spread = []
    for _ in range(80):
        decoder.decode(tokens)
        counts = decoder.gathered_statistics()
        assert counts.sum() == 400
        decoder.move_statistics(counts)
        assert decoder.step_counts is not None
        spread.append(float(decoder.step_counts.sum(dim=0).std()))
    assert max(spread[-9:]) < spread[0] / 2
    assert float(decoder.selection_bias.abs().max()) <= 80 * 0.01 + 1e-6
    # The bias chooses, and does not weigh: scores that are chosen as before have the weights they had.
    decoder.selection_bias.zero_()
    torch.testing.assert_close(decoder.routes(tokens).weights, weights)
    decoder.counts = False
    decoder.decode(tokens)
    assert decoder.gathered_statistics().sum() == 0
    decoder.counts = True
    decoder.eval().decode(tokens)
    assert decoder.gathered_statistics().sum() == 0
    decoder.train().release_statistics()
    decoder.decode(tokens)
    decoder.gather_statistics()
    assert decoder.gathered_statistics().sum() == 0


def test_a_step_of_two_processes_is_that_of_one(tokens: TokensToDecode) -> None:
    whole, parts = mixture().train(), mixture().train()
    for decoder in (whole, parts):
        decoder.gather_statistics()
    whole.decode(tokens)
    whole.move_statistics(whole.gathered_statistics())
    sums = []
    for half in (slice(0, 70), slice(70, 200)):
        parts.gather_statistics()
        states, cells = tokens.states_ND[half], tokens.cells_N[half]
        parts.decode(dataclasses.replace(tokens, states_ND=states, cells_N=cells))
        sums.append(parts.gathered_statistics())
    parts.move_statistics(sums[0] + sums[1])
    torch.testing.assert_close(parts.selection_bias, whole.selection_bias)


def test_a_bias_that_no_score_outweighs_chooses_alone(tokens: TokensToDecode) -> None:
    decoder = mixture()
    assert decoder.selection_bias is not None
    scores = mixture(n_active=4).routes(tokens)
    decoder.selection_bias.copy_(torch.tensor([0.0, 2.0, 0.0, 2.0]))
    routes = decoder.routes(tokens)
    assert set(routes.chosen.flatten().tolist()) == {1, 3}
    whole = torch.zeros(200, 4).scatter(1, scores.chosen, scores.weights)
    expected = whole[:, [1, 3]] / whole[:, [1, 3]].sum(dim=1, keepdim=True)
    found = torch.zeros(200, 4).scatter(1, routes.chosen, routes.weights)[:, [1, 3]]
    torch.testing.assert_close(found, expected)


def test_without_balance_there_is_no_bias() -> None:
    decoder = mixture(balance_rate=0.0)
    assert decoder.selection_bias is None
    assert len(decoder.state_dict()) == 2 + 4 * 6
    decoder.move_statistics(torch.ones(8, dtype=torch.float64))


def test_experts_without_a_token_have_gradients(tokens: TokensToDecode) -> None:
    decoder = mixture()
    assert decoder.selection_bias is not None
    decoder.selection_bias.copy_(torch.tensor([0.0, 2.0, 0.0, 2.0]))
    decoder.decode(tokens).sum().backward()
    assert all(weight.grad is not None for weight in decoder.parameters())


def test_the_counts_of_routes(tokens: TokensToDecode) -> None:
    routes = mixture().routes(tokens)
    counts = count_routes(routes, tokens, (2, 4))
    for technology in range(2):
        of = (tokens.technologies_B[tokens.cells_N] == technology).unsqueeze(1)
        for expert in range(4):
            assert counts[technology, expert] == int(((routes.chosen == expert) & of).sum())


def test_the_report() -> None:
    report = RoutingReport.of_counts(np.array([[30, 10], [5, 15]]), ["visium", "xenium"])
    np.testing.assert_allclose(report.load, [35 / 60, 25 / 60])
    np.testing.assert_allclose(report.by_technology, [[0.75, 0.25], [0.25, 0.75]])
    joint = np.array([[30, 10], [5, 15]]) / 60
    apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    np.testing.assert_allclose(report.mutual_information, (joint * np.log2(joint / apart)).sum())
    np.testing.assert_allclose(report.technology_entropy, -(2 / 3) * np.log2(2 / 3) - np.log2(1 / 3) / 3)
    assert report.as_dict()["by_technology"] == {"visium": [0.75, 0.25], "xenium": [0.25, 0.75]}
    assert report.sentence().startswith("Of the tokens, each of the 2 experts got 42% to 58%; the expert tells 0.169")
    same = RoutingReport.of_counts(np.array([[10, 10], [20, 20], [0, 0]]), ["a", "b", "c"])
    assert same.mutual_information == pytest.approx(0.0, abs=1e-12)
    assert same.as_dict()["by_technology"]["c"] is None
    with pytest.raises(InputError, match="no tokens"):
        RoutingReport.of_counts(np.zeros((1, 2)), ["a"])
    with pytest.raises(InputError, match="row for each of 1 technologies"):
        RoutingReport.of_counts(np.zeros((2, 2)), ["a"])

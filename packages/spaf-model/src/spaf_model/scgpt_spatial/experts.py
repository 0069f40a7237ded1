"""The decoder of tokens: one number for each hidden gene, by one expert or by a few of several.

Experts are computed for the tokens that are sent to them and for no others. What is sent where, a router says from the
state of the token, or of its cell, beside the technology. The load is balanced without a loss of its own: a bias that
takes part in the selection and not in the weights is moved after each step, by the sign of what an expert got too
little (Wang et al. 2024, https://arxiv.org/abs/2408.15664).

The technology is the same for all tokens of a cell, so its half of the first linear map is computed once a cell and
added as a bias.

Shapes are named as in `layers`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig

_REMEMBERED = 0.99  # of what went where, from one step to the next: a report is of the last hundred steps


@dataclasses.dataclass(frozen=True)
class TokensToDecode:
    """Positions of a batch whose numbers are wanted, and the cells they are of."""

    states_ND: torch.Tensor
    cells_N: torch.Tensor  # which cell of the batch
    cell_states_BD: torch.Tensor  # of the cells of the batch; only routing by cell reads them
    technologies_B: torch.Tensor  # rows of the technology table; -1 where there is none
    technology_states_BD: torch.Tensor | None  # None where the model has no technologies


@dataclasses.dataclass(frozen=True)
class Routes:
    """What tokens are sent to."""

    chosen: torch.Tensor  # (N, n_active) experts
    weights: torch.Tensor  # (N, n_active), adding up to 1


def split_linear(linear: nn.Linear, width: int, extra_BD: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of a linear map for a state, and the rest of the map as a bias of each cell.

    Parameters
    ----------
    linear
        Of a state and, behind it, what is the same for a whole cell.
    width
        D, of the state.
    extra_BD
        That part, a row for each cell; None where there is none.

    Returns
    -------
    Weights (out, D), and biases (B, out) or (1, out).
    """
    if extra_BD is None:
        return linear.weight, linear.bias.unsqueeze(0)
    return linear.weight[:, :width], F.linear(extra_BD, linear.weight[:, width:], linear.bias)


class Expert(nn.Module):
    """Two hidden layers of width D with leaky ReLUs, and a number."""

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        self.width = config.width
        self.read = nn.Linear(config.decoder_width, config.width)
        self.mix = nn.Linear(config.width, config.width)
        self.score = nn.Linear(config.width, 1)

    def forward(
        self, states_ND: torch.Tensor, cells_N: torch.Tensor, technology_states_BD: torch.Tensor | None
    ) -> torch.Tensor:
        """Return a number for each token, (N,)."""
        weight, bias = split_linear(self.read, self.width, technology_states_BD)
        bias = bias if technology_states_BD is None else bias.index_select(0, cells_N)
        x_ND = F.leaky_relu(F.linear(states_ND, weight) + bias)
        scores: torch.Tensor = self.score(F.leaky_relu(self.mix(x_ND)))
        return scores.squeeze(-1)


class SingleExpert(Expert):
    """The decoder without a router."""

    def decode(self, tokens: TokensToDecode) -> torch.Tensor:
        """Return a number for each token, (N,)."""
        numbers_N: torch.Tensor = self(tokens.states_ND, tokens.cells_N, tokens.technology_states_BD)
        return numbers_N


class ExpertMixture(nn.Module):
    """The decoder of several experts, each token by the best `n_active` of them.

    While statistics are gathered (`spaf_model.family.StepStatistics`), training counts what goes where; at the end of a
    step the bias of the selection moves by the counts of the whole step. Nothing moves by itself.

    Attributes
    ----------
    counts
        Whether to count; to be set to False while a pass is computed again for its gradients.
    step_counts
        How many tokens of each technology went to each expert in the last step that ended, (T, E); None before.
    """

    selection_bias: torch.Tensor | None
    routed: torch.Tensor | None

    def __init__(self, config: ScGPTSpatialConfig) -> None:
        super().__init__()
        self.width = config.width
        self.n_active = config.n_active
        self.by_cell = config.routing == "cell"
        self.balance_rate = config.balance_rate
        self.counts = True
        self.router = nn.Linear(config.decoder_width, config.n_experts)
        self.experts = nn.ModuleList(Expert(config) for _ in range(config.n_experts))
        bias = torch.zeros(config.n_experts) if config.balance_rate > 0.0 else None
        self.register_buffer("selection_bias", bias)
        self._shape = (max(config.n_technologies or 0, 1), config.n_experts)
        # Tokens of each technology to each expert in the last steps of training, for the report of the model.
        routed = torch.zeros(self._shape) if config.balance_rate > 0.0 else None
        self.register_buffer("routed", routed)
        self._counts: torch.Tensor | None = None
        self.step_counts: torch.Tensor | None = None

    def routes(self, tokens: TokensToDecode) -> Routes:
        """Return what each token is sent to, and the weights of what comes back."""
        weight, bias = split_linear(self.router, self.width, tokens.technology_states_BD)
        if self.by_cell:
            logits = (F.linear(tokens.cell_states_BD, weight) + bias).index_select(0, tokens.cells_N)
        else:
            bias = bias if tokens.technology_states_BD is None else bias.index_select(0, tokens.cells_N)
            logits = F.linear(tokens.states_ND, weight) + bias
        scores_NE = logits.float().softmax(dim=-1)
        ranked_NE = scores_NE if self.selection_bias is None else scores_NE + self.selection_bias
        chosen = ranked_NE.topk(self.n_active, dim=-1).indices
        weights = scores_NE.gather(-1, chosen)
        return Routes(chosen, weights / weights.sum(dim=-1, keepdim=True))

    def decode(self, tokens: TokensToDecode) -> torch.Tensor:
        """Return a number for each token, (N,), float32."""
        routes = self.routes(tokens)
        if self.training and self.counts and self._counts is not None:
            self._counts = self._counts + count_routes(routes, tokens, self._shape)
        numbers_N = tokens.states_ND.new_zeros(tokens.states_ND.shape[0], dtype=torch.float32)
        # An expert that nothing is sent to computes nothing, and has gradients all the same, of 0.
        for number, expert in enumerate(self.experts):
            rows, places = (routes.chosen == number).nonzero(as_tuple=True)
            states_ND = tokens.states_ND.index_select(0, rows)
            found = expert(states_ND, tokens.cells_N.index_select(0, rows), tokens.technology_states_BD)
            numbers_N = numbers_N.index_add(0, rows, found.float() * routes.weights[rows, places])
        return numbers_N

    @torch.no_grad()
    def count(self, tokens: TokensToDecode) -> torch.Tensor:
        """Return how many of some tokens of each technology would go to each expert, (T, E), float64."""
        return count_routes(self.routes(tokens), tokens, self._shape)

    def gather_statistics(self) -> None:
        """Begin to count; what was counted before is forgotten."""
        self._counts = torch.zeros(self._shape, dtype=torch.float64, device=self.router.weight.device)

    def gathered_statistics(self) -> torch.Tensor:
        """Return what was counted, float64 (T E,)."""
        assert self._counts is not None
        return self._counts.flatten()

    @torch.no_grad()
    def move_statistics(self, sums: torch.Tensor) -> None:
        """Move the bias of the selection by the counts of a step, of all its processes, and begin to count anew."""
        self.step_counts = sums.view(self._shape)
        self.gather_statistics()
        if self.routed is not None:
            self.routed.mul_(_REMEMBERED).add_(self.step_counts.to(self.routed))
        if self.selection_bias is None or not bool(sums.any()):
            return
        load_E = self.step_counts.sum(dim=0)
        missing_E = (load_E.mean() - load_E).sign().to(self.selection_bias)
        self.selection_bias.add_(missing_E, alpha=self.balance_rate)

    def release_statistics(self) -> None:
        """Count no longer."""
        self._counts = None


@torch.no_grad()
def count_routes(routes: Routes, tokens: TokensToDecode, shape: tuple[int, int]) -> torch.Tensor:
    """Count the tokens of each technology sent to each expert, (T, E), float64; no technology counts as the first."""
    technologies_N = tokens.technologies_B.index_select(0, tokens.cells_N).clamp(min=0)
    places = (technologies_N.unsqueeze(-1) * shape[1] + routes.chosen).flatten()
    return torch.bincount(places, minlength=shape[0] * shape[1]).view(shape).double()


def token_decoder(config: ScGPTSpatialConfig) -> SingleExpert | ExpertMixture:
    """Make the decoder of tokens that a configuration asks for."""
    return SingleExpert(config) if config.n_experts == 1 else ExpertMixture(config)

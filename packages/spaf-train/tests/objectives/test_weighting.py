import math

import pytest
import torch

from spaf_model import InputError
from spaf_train.objectives import (
    ColocalizationConfig,
    MaskedGenesConfig,
    ObjectivesConfig,
    ObjectiveWeighting,
    PairsConfig,
)

LOSSES = {"a": torch.tensor(3.0), "b": torch.tensor(0.5)}


def test_fixed_is_a_weighted_sum():
    weighting = ObjectiveWeighting(["a", "b"], "fixed")
    assert weighting(LOSSES, {"a": 2.0, "b": 10.0}).item() == pytest.approx(11.0)
    assert not list(weighting.parameters())


def test_uncertainty_by_hand():
    weighting = ObjectiveWeighting(["a", "b"], "uncertainty")
    with torch.no_grad():
        weighting.log_scales["a"].fill_(0.7)
    expected = math.exp(-0.7) * 3.0 + 0.7 + 4.0 * 0.5
    assert weighting(LOSSES, {"a": 1.0, "b": 4.0}).item() == pytest.approx(expected, rel=1e-6)


def test_learned_scale_settles_at_the_log_of_the_loss():
    weighting = ObjectiveWeighting(["a", "b"], "uncertainty")
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        weighting(LOSSES, {"a": 1.0, "b": 1.0}).backward()
        optimizer.step()
    assert weighting.log_scales["a"].item() == pytest.approx(math.log(3.0), abs=1e-3)
    assert weighting.log_scales["b"].item() == pytest.approx(math.log(0.5), abs=1e-3)


def test_parts_of_a_step_add_up():
    weighting = ObjectiveWeighting(["a", "b"], "uncertainty")
    with torch.no_grad():
        weighting.log_scales["b"].fill_(-1.0)
    factors = {"a": 1.0, "b": 0.5}
    halves = {name: loss / 2 for name, loss in LOSSES.items()}
    whole = weighting(LOSSES, factors)
    assert (2 * weighting(halves, factors, 0.5)).item() == pytest.approx(whole.item(), rel=1e-6)


def test_schedule_and_switches():
    objectives = ObjectivesConfig(
        masked_genes=MaskedGenesConfig(weight=2.0),
        colocalization=ColocalizationConfig(weight=3.0),
        pairs=PairsConfig(enabled=False),
    )
    assert objectives.enabled == ["masked_genes", "colocalization"]
    assert objectives.factors(0.0) == {"masked_genes": 2.0, "colocalization": 3.0}
    assert objectives.factors(0.75) == {"masked_genes": 2.0, "colocalization": 0.75}
    steady = ObjectivesConfig(colocalization=ColocalizationConfig(ramp_down=False))
    assert steady.factors(0.75)["colocalization"] == 1.0


def test_all_switched_off_is_refused():
    with pytest.raises(InputError, match="at least one"):
        ObjectivesConfig(
            masked_genes=MaskedGenesConfig(enabled=False),
            colocalization=ColocalizationConfig(enabled=False),
            pairs=PairsConfig(enabled=False),
        )

"""Which objectives are trained, and how: a table for each that is registered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from spaf_train._checks import require
from spaf_train._options import Tables
from spaf_train.objectives.base import OBJECTIVES, Column, Objective, ObjectiveConfig
from spaf_train.objectives.weighting import WeightingConfig


@dataclasses.dataclass(frozen=True, init=False)
class ObjectivesConfig:
    """Which objectives are trained, and how.

    The table of each of `OBJECTIVES` is an argument and an attribute of its name; those not given are as they come.

    Parameters
    ----------
    weighting
        How the losses become one.
    tables
        Tables of objectives, as another configuration has them.
    **given
        Tables of objectives by name.

    Examples
    --------
    >>> config = ObjectivesConfig(pairs=OBJECTIVES["pairs"].Config(enabled=False))
    >>> config.enabled
    ['masked_genes', 'colocalization']
    >>> config.pairs.weight
    1.0
    """

    weighting: WeightingConfig = WeightingConfig()
    tables: Tables = Tables()

    def __init__(
        self, *, weighting: WeightingConfig = WeightingConfig(), tables: Tables = Tables(), **given: ObjectiveConfig
    ) -> None:
        unknown = sorted(given.keys() - OBJECTIVES.keys())
        if unknown:
            raise TypeError(f"There is no objective {unknown[0]}; the objectives are: {', '.join(OBJECTIVES)}.")
        object.__setattr__(self, "weighting", weighting)
        object.__setattr__(self, "tables", tables.with_(given))
        require(bool(self.enabled), f"objectives must leave at least one of {', '.join(OBJECTIVES)} enabled.")

    @staticmethod
    def known_tables() -> dict[str, type]:
        """Return the class of the table of each objective."""
        return {name: objective.Config for name, objective in OBJECTIVES.items()}

    def table(self, name: str) -> Any:
        """Return the table of an objective."""
        given = self.tables.get(name)
        return OBJECTIVES[name].Config() if given is None else given

    def __getattr__(self, name: str) -> Any:
        if name in OBJECTIVES:
            return self.table(name)
        raise AttributeError(name)

    @property
    def enabled(self) -> list[str]:
        """Names of the objectives that are trained, in the order of the metrics."""
        return [name for name in OBJECTIVES if self.table(name).enabled]

    @property
    def columns(self) -> list[Column]:
        """Columns of the enabled objectives: the losses, then the rest."""
        return objective_columns(self.enabled)

    def make(self) -> dict[str, Objective]:
        """Return the enabled objectives by name."""
        return {name: OBJECTIVES[name](self.table(name)) for name in self.enabled}

    def without(self, name: str) -> ObjectivesConfig:
        """Return the same with an objective switched off."""
        off = dataclasses.replace(self.table(name), enabled=False)
        return ObjectivesConfig(weighting=self.weighting, tables=self.tables.with_({name: off}))

    def factors(self, progress: float) -> dict[str, float]:
        """Return the factor of each enabled objective at a point of the run, from 0 (start) to 1 (end)."""
        return {name: objective.factor(progress) for name, objective in self.make().items()}


class ObjectiveSet(Protocol):
    """What training asks: `ObjectivesConfig`, or `GivenObjectives`."""

    @property
    def weighting(self) -> WeightingConfig:
        """How the losses become one."""

    @property
    def enabled(self) -> list[str]:
        """Names."""

    def make(self) -> dict[str, Objective]:
        """Return the objectives by name."""

    def factors(self, progress: float) -> dict[str, float]:
        """Return the factor of each at a point of the run."""


@dataclasses.dataclass(frozen=True)
class GivenObjectives:
    """Objectives that no configuration names, such as labels in fine-tuning, by name; their weights are fixed."""

    given: Mapping[str, Objective]
    weighting: WeightingConfig = WeightingConfig(method="fixed")

    @property
    def enabled(self) -> list[str]:
        """Names of the objectives."""
        return list(self.given)

    def make(self) -> dict[str, Objective]:
        """Return the objectives by name."""
        return dict(self.given)

    def factors(self, progress: float) -> dict[str, float]:
        """Return the factor of each objective at a point of the run, from 0 (start) to 1 (end)."""
        return {name: objective.factor(progress) for name, objective in self.given.items()}


def objective_columns(names: list[str] | None = None) -> list[Column]:
    """Return the columns of some objectives, or of all: their losses, then the rest."""
    chosen = [OBJECTIVES[name] for name in (OBJECTIVES if names is None else names)]
    losses = [objective.columns[0] for objective in chosen]
    return losses + [column for objective in chosen for column in objective.columns[1:]]

"""What the configurations of families share: plain values out and in, and checks of options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, cast

from spaf_model.errors import InputError


class PlainConfig:
    """What a frozen dataclass of plain values derives from, to be a `spaf_model.family.FamilyConfig`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of plain values."""
        return dataclasses.asdict(cast("Any", self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from plain values.

        Raises
        ------
        InputError
            If a key is not an option, or a value is out of range.
        """
        known = [field.name for field in dataclasses.fields(cast("Any", cls))]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InputError(f"Unknown option(s) {', '.join(unknown)}; the options are: {', '.join(known)}.")
        return cls(**values)


def checked_number(name: str, value: object) -> float:
    """Return a number, or raise `InputError` where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} must be a number, not {value!r}.")
    return float(value)

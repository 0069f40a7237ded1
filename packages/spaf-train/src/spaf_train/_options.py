"""TOML tables into frozen dataclasses and back, with errors that name the option."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from spaf_model import InputError

T = TypeVar("T")


class Tables:
    """Tables of options by name, each a dataclass: those that were given, where the others are as they come.

    The class that has such a field, named ``tables``, says in ``known_tables()`` which names there are, and gives in
    ``table(name)`` the one of a name; so what is registered elsewhere has a table in its configuration.

    Parameters
    ----------
    given
        Dataclasses by name; one that is as it comes is as good as none.
    """

    def __init__(self, given: Mapping[str, Any] = types.MappingProxyType({})) -> None:
        self._given = {name: given[name] for name in sorted(given) if given[name] != type(given[name])()}

    def get(self, name: str) -> Any:
        """Return the table of a name, or None."""
        return self._given.get(name)

    def with_(self, more: Mapping[str, Any]) -> Tables:
        """Return the same with some tables in place of those of their names."""
        return Tables({**self._given, **more})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tables) and self._given == other._given

    def __hash__(self) -> int:
        return hash(tuple(self._given.items()))

    def __repr__(self) -> str:
        return f"Tables({self._given!r})"


def _more_tables(cls: type) -> Mapping[str, type]:
    known = getattr(cls, "known_tables", None)
    return {} if known is None else known()


def from_table(cls: type[T], table: Mapping[str, Any], *, prefix: str = "") -> T:
    """Build a dataclass, and those nested in it, from a TOML table.

    Parameters
    ----------
    cls
        A dataclass whose fields are annotated with bool, int, float, str, a ``Literal``, a tuple of one of these, an
        optional of one of these, another such dataclass, or Any, which is taken as it is.
    table
        Values by field name; what is absent keeps its default.
    prefix
        Name of the table, for messages.

    Raises
    ------
    InputError
        For a key that is no field (with the nearest names), a value of another type, or a value that the dataclass
        refuses.
    """
    hints = typing.get_type_hints(cls)
    more = _more_tables(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    names = [*(field.name for field in fields if not (more and field.name == "tables")), *more]
    values: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for key, value in table.items():
        if key not in names:
            raise InputError(_unknown(prefix + key, key, names))
        if key in more:
            given[key] = _convert(more[key], value, prefix + key)
        else:
            values[key] = _convert(hints[key], value, prefix + key)
    if given:
        values["tables"] = Tables(given)
    for field in fields:
        if field.init and field.default is field.default_factory is dataclasses.MISSING and field.name not in values:
            raise InputError(f"{prefix}{field.name} is missing.")
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(f"{prefix.rstrip('.')}: {error}") if prefix and prefix not in str(error) else error from None


def check_types(instance: Any) -> None:
    """Raise InputError, naming the option, where a field of a dataclass has a value of another type.

    For `__post_init__`: what is made in Python is then refused in the words of a file.
    """
    hints = typing.get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        if not isinstance(value, Tables) and not dataclasses.is_dataclass(value):
            _convert(hint, value, field.name)


def to_table(instance: Any) -> dict[str, Any]:
    """Return a dataclass as a TOML table: every field, except those that are None, which TOML cannot say."""
    table: dict[str, Any] = {}
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, Tables):
            table.update({name: to_table(instance.table(name)) for name in _more_tables(type(instance))})
        elif dataclasses.is_dataclass(value):
            table[field.name] = to_table(value)
        elif isinstance(value, tuple):
            table[field.name] = list(value)
        elif value is not None:
            table[field.name] = value
    return table


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one mapping from dotted names to values."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{name} must be a table of options, not {value!r}.")
        return from_table(typing.cast("type", hint), value, prefix=f"{name}.")
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise InputError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}.")
        return value
    if origin in (Union, types.UnionType):
        inner = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        if value is None and len(inner) < len(typing.get_args(hint)):
            return None
        return _convert(inner[0], value, name)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(f"{name} must be a list, not {value!r}.")
        return tuple(_convert(typing.get_args(hint)[0], item, name) for item in value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if hint is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise InputError(f"{name} must be {kinds[hint]}, not {value!r}.")


def _unknown(name: str, key: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
    if near:
        return f"{name} is not an option; did you mean {' or '.join(near)}?"
    return f"{name} is not an option; the options there are: {', '.join(names)}."

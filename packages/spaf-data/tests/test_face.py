"""What is public: every name is there, and says what it is."""

import inspect

import pytest

import spaf_data


@pytest.mark.parametrize("name", spaf_data.__all__)
def test_public_names_say_what_they_are(name: str) -> None:
    assert inspect.getdoc(getattr(spaf_data, name)), f"{name} has no docstring"

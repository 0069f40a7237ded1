import dataclasses
import inspect
from typing import get_args, get_type_hints

import anndata
import pytest

from spaf_model import InputError, SpatialFormer
from spaf_model._commands import shared_options
from spaf_model.options import (
    CallOptions,
    EmbeddingSettings,
    KernelOptions,
    ReadingOptions,
    SharedOptions,
    default_of,
)


def test_every_option_has_one_type_and_one_default() -> None:
    hints = get_type_hints(KernelOptions)
    fields = {
        field.name: hint
        for holder in (ReadingOptions, EmbeddingSettings, CallOptions)
        for field in dataclasses.fields(holder)
        if (hint := get_type_hints(holder)[field.name]) not in (ReadingOptions, EmbeddingSettings)
    }
    assert fields == hints
    assert {name: default_of(name) for name in hints} == {
        **dataclasses.asdict(ReadingOptions()), **dataclasses.asdict(EmbeddingSettings()),
        "table_key": None, "progress": False,
    }  # fmt: skip
    assert set(hints) - set(get_type_hints(SharedOptions)) == {"kernel"}


def test_options_are_sorted_by_what_they_are_for() -> None:
    call = CallOptions.of({"tissue": "Lung", "token_budget": 7, "table_key": "cells", "progress": True})
    assert call.reading == ReadingOptions(tissue="Lung")
    assert call.settings == EmbeddingSettings(token_budget=7)
    assert (call.table_key, call.progress) == ("cells", True)
    with pytest.raises(InputError, match="precision must be one of fp32, bf16"):
        CallOptions.of({"precision": "fp8"})


def test_a_misspelt_option_lists_those_there_are(model: SpatialFormer, adata: anndata.AnnData) -> None:
    with pytest.raises(TypeError, match="There is no option 'tisue'; the options are: tissue, condition"):
        model.embed(adata, tisue="Lung")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="There is no option 'kernel'"):
        model.attention(adata, [["cell1", "cell2"]], kernel="sdpa")  # type: ignore[call-arg]


def test_commands_have_the_options_of_the_calls() -> None:
    @shared_options(KernelOptions)
    def command(out: str, **options: object) -> None:
        assert options == {"tissue": "Lung"}

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["out", *(name for name in get_type_hints(KernelOptions) if name not in _PYTHON_ONLY)]
    assert parameters["min_gene_fraction"].default == 0.5
    assert get_args(parameters["precision"].annotation)[0] == get_type_hints(KernelOptions)["precision"]
    command(out="x", tissue="Lung")


_PYTHON_ONLY = ("table_key", "progress")

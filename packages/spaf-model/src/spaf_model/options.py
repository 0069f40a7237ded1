"""Options that many calls and commands share: each has its type, its help and its default here, and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, get_args, get_type_hints

import pandas as pd

from spaf_model.errors import InputError
from spaf_model.gene_names import GeneNames
from spaf_model.kernels import KernelName

Precision = Literal["fp32", "bf16"]


@dataclasses.dataclass(frozen=True)
class About:
    """What the command line says of an option."""

    help: str
    least: float | None = None
    most: float | None = None
    in_command: bool = True  # whether the command line has it
    command_type: Any = None  # there; None: that of the argument


class SharedOptions(TypedDict, total=False):
    """Keyword arguments of every call that reads cells with a model; `Model.embed` describes them."""

    tissue: Annotated[str | None, About("Tissue of all cells. Default: obs column 'tissue'.")]
    condition: Annotated[str | None, About("Condition. Default: obs column 'condition'.")]
    species: Annotated[str | None, About("Species. Default: obs column 'species'.")]
    assay: Annotated[str | None, About("Assay. Default: obs column 'assay'.")]
    layer: Annotated[str | None, About("Layer with the counts. Default: X.")]
    slide_key: Annotated[
        str | None,
        About("obs column with the slide of each cell, for whole-slide models and niches. Default: slide, sample, .."),
    ]
    table_key: Annotated[str | None, About("Table of a SpatialData.", in_command=False)]
    gene_names: Annotated[
        GeneNames | None,
        About("Table of other names of genes: columns name (in the data) and gene.", command_type=Path | None),
    ]
    min_gene_fraction: Annotated[float, About("Least share of genes found.", least=0.0, most=1.0)]
    strict: Annotated[bool, About("Refuse cells without any gene of the model.")]
    token_budget: Annotated[
        int | None,
        About("Most tokens of a batch; lower it when memory runs out. Default: by device and width.", least=1),
    ]
    precision: Annotated[Precision, About("bf16 is faster where the processor has it.")]
    progress: Annotated[bool, About("Show a bar on stderr.", in_command=False)]


class KernelOptions(SharedOptions, total=False):
    """Those, and the attention kernel, where attention is not what is asked for."""

    kernel: Annotated[KernelName | None, About("Attention kernel. Default: see 'kernels'.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How an AnnData is read."""

    tissue: str | None = None  # context of all cells; None: the obs column of that name
    condition: str | None = None
    species: str | None = None
    assay: str | None = None
    layer: str | None = None  # with the counts; None: X
    slide_key: str | None = None  # obs column of slides; None: "slide", where it is there
    gene_names: GeneNames | None = None  # other names of genes (`spaf_model.gene_names`)
    min_gene_fraction: float = 0.5  # least share of genes that must match
    strict: bool = False  # refuse cells without any gene of the vocabulary

    def as_record(self) -> dict[str, Any]:
        """Return the options that are set, as plain values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(self.gene_names, (Mapping, pd.DataFrame)):
            values["gene_names"] = f"a table of {len(self.gene_names)}"
        elif self.gene_names is not None:
            values["gene_names"] = str(self.gene_names)
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class EmbeddingSettings:
    """How a model computes; none of it changes results beyond rounding, except `precision`."""

    token_budget: int | None = None  # most tokens of a batch, padding included; None: by device and width
    precision: Precision = "fp32"  # of matrix products and attention
    kernel: KernelName | None = None  # attention kernel to force; None: `select_kernel`

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, not {self.precision!r}.")
        if self.token_budget is not None and self.token_budget < 1:
            raise InputError(f"token_budget must be at least 1, not {self.token_budget}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallOptions:
    """The shared options of one call, by what they are for."""

    reading: ReadingOptions
    settings: EmbeddingSettings
    table_key: str | None = None
    progress: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any], kind: type = KernelOptions) -> CallOptions:
        """Sort out keyword arguments.

        Parameters
        ----------
        options
            Keyword arguments of a call; what is not among them has its default.
        kind
            `SharedOptions` or `KernelOptions`: which there may be.

        Raises
        ------
        TypeError
            If there is no such option; the sentence lists those there are.
        """
        known = get_type_hints(kind)
        unknown = [name for name in options if name not in known]
        if unknown:
            raise TypeError(f"There is no option {unknown[0]!r}; the options are: {', '.join(known)}.")

        def of_class(wanted: type) -> dict[str, Any]:
            names = {field.name for field in dataclasses.fields(wanted)}
            return {name: value for name, value in options.items() if name in names}

        return cls(
            reading=ReadingOptions(**of_class(ReadingOptions)),
            settings=EmbeddingSettings(**of_class(EmbeddingSettings)),
            **of_class(cls),
        )


def default_of(option: str) -> Any:
    """Return the default of a shared option."""
    for holder in (ReadingOptions, EmbeddingSettings, CallOptions):
        for field in dataclasses.fields(holder):
            if field.name == option:
                return field.default
    raise AssertionError(option)

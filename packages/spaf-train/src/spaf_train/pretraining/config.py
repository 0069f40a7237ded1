"""The configuration of a run: one TOML file, or a preset that the package ships."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from spaf_model import InputError, family_of
from spaf_train._options import check_types, from_table, to_table
from spaf_train.objectives import ObjectivesConfig, objective_columns
from spaf_train.pretraining.gene_table import GeneTableConfig, with_gene_table
from spaf_train.pretraining.vocabulary import VocabularyConfig
from spaf_train.stream.samplers import SamplingConfig
from spaf_train.trainer.config import RunConfig
from spaf_train.trainer.distributed import DistributedConfig
from spaf_train.trainer.optim import OptimizerConfig

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


DEFAULT_FAMILY = "spatialformer"
TISSUE_PRESETS = ("tissue", "neighbours")  # of models that are fitted; the first is the default of the command line


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that a pre-training run is told, apart from where its data is.

    Each table of the TOML file is a dataclass that stands beside what it configures: the configuration of a family
    (``[model]``, whose word ``family`` chooses it, such as `spaf_model.SpatialFormerConfig`), `SamplingConfig`
    (``[sampling]``), `ObjectivesConfig` (``[objectives.*]``), `OptimizerConfig` (``[optimizer]``), `RunConfig`
    (``[run]``), `DistributedConfig` (``[distributed]``), `VocabularyConfig` (``[vocabulary]``) and `GeneTableConfig`
    (``[gene_embeddings]``), whose path switches on ``model.gene_spatial_embedding``.
    """

    seed: int = 0  # of the weights, the order of the data, all draws and dropout
    family: str = DEFAULT_FAMILY  # of the model; in TOML it is model.family
    model: Any = None  # sizes of the model, as the family configures them; None: its defaults
    continue_from: str | None = (
        None  # model directory, or name of a shipped model, whose weights and sizes it begins with
    )
    vocabulary: VocabularyConfig = VocabularyConfig()
    gene_embeddings: GeneTableConfig = GeneTableConfig()
    sampling: SamplingConfig = SamplingConfig()
    objectives: ObjectivesConfig = ObjectivesConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()
    distributed: DistributedConfig = DistributedConfig()

    def __post_init__(self) -> None:
        check_types(self)
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, not {self.seed}.")
        family = family_of(self.family)
        if family.reads_whole_slides:
            raise InputError(
                f"model.family is {self.family}, which is fitted to whole slides and not trained on batches; the "
                "preset tissue fits such a model."
            )
        model = from_table(family.Config, {}, prefix="model.") if self.model is None else self.model
        if not isinstance(model, family.Config):
            raise InputError(f"model is a {type(model).__name__}, and model.family is {self.family}.")
        object.__setattr__(self, "model", with_gene_table(model, self.gene_embeddings))
        for objective in self.objectives.make().values():
            objective.check(self.model, self.sampling)
        choices = ["loss", *self.measured, "last"]
        if self.run.best_metric not in choices:
            off = self.run.best_metric in [column.name for column in objective_columns()]
            why = "needs an objective that is switched off" if off else "no column of validation has for its name"
            raise InputError(
                f"run.best_metric is {self.run.best_metric}, which {why}; the choices are: {', '.join(choices)}."
            )

    @property
    def measured(self) -> list[str]:
        """Metrics of validation that the enabled objectives give."""
        return [column.name for column in self.objectives.columns if column.validated]

    def to_toml(self) -> str:
        """Return the whole configuration, defaults included, as TOML."""
        return tomli_w.dumps(self.as_table())

    def as_table(self) -> dict[str, Any]:
        """Return the whole configuration, defaults included, as plain values in tables."""
        table = to_table(self)
        family, model = table.pop("family"), table.pop("model")
        return {"seed": table.pop("seed"), "model": {"family": family, **model}, **table}


def presets() -> list[str]:
    """Return the names of the configurations that the package ships."""
    return shipped_in(resources.files("spaf_train.pretraining") / "presets")


def shipped_in(folder: Traversable) -> list[str]:
    """Return the names of the TOML files in a folder of the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_table(source: str | Path, folder: Traversable, *, more: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file, or the one of that name that ships in a folder of the package; `more` presets are named too.

    Raises
    ------
    InputError
        If there is no such file or name, or the file is not TOML.
    """
    shipped = shipped_in(folder)
    if str(source) in shipped:
        text = (folder / f"{source}.toml").read_text("utf-8")
    elif Path(source).is_file():
        try:
            text = Path(source).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{source} is not a text file: {error}.") from error
    else:
        raise InputError(
            f"There is no configuration {source}: it is no file, and the presets are: {', '.join([*more, *shipped])}."
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not a TOML file: {error}.") from error


def read_config(source: str | Path, *, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Read the configuration of a run.

    Parameters
    ----------
    source
        A TOML file, or the name of a preset (`presets`).
    overrides
        Options that replace those of the file, as ``"section.option=value"``; the value is written as in TOML, and
        quotes around a text may be left out.

    Raises
    ------
    InputError
        If there is no such file or preset, the file is not TOML, or an option is unknown or out of range.

    Examples
    --------
    >>> config = read_config("small", overrides=["run.steps=10", "model.width=32"])
    >>> config.run.steps, config.model.width
    (10, 32)
    """
    if str(source) in TISSUE_PRESETS and not Path(source).is_file():
        raise InputError(
            f"{source} is a preset of models that are fitted, not trained by steps: read_tissue_config reads it, and "
            "pretrain_tissue runs it (spaf-train pretrain does both)."
        )
    table = read_table(source, resources.files("spaf_train.pretraining") / "presets", more=TISSUE_PRESETS)
    for override in overrides:
        apply_override(table, override)
    return _of_table(table)


def _of_table(table: dict[str, Any]) -> PretrainConfig:
    options = table.get("model", {})
    if not isinstance(options, Mapping):
        raise InputError(f"model must be a table of options, not {options!r}.")
    if "family" in table:
        raise InputError("family is not an option; did you mean model.family?")
    family = options.get("family", DEFAULT_FAMILY)
    if not isinstance(family, str):
        raise InputError(f"model.family must be a text, not {family!r}.")
    sizes = {name: value for name, value in options.items() if name != "family"}
    try:
        config = family_of(family).Config
    except InputError as error:
        raise InputError(f"model.family: {error}") from error
    model = from_table(config, sizes, prefix="model.")
    return from_table(PretrainConfig, {**table, "family": family, "model": model})


def apply_override(table: dict[str, Any], override: str) -> None:
    """Set an option of a TOML table, given as ``"section.option=value"``.

    Raises
    ------
    InputError
        If it is not written so.
    """
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"An override is written section.option=value, not {override!r}.")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(f"{name.strip()} is not an option: {key} is not a table of options.")
    table[keys[-1]] = value

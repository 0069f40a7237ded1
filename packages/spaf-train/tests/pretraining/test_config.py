import dataclasses

import pytest

from spaf_model import InputError
from spaf_train import (
    EvaluationOptions,
    FinetuneConfig,
    GeneEmbeddingOptions,
    GeneTableConfig,
    OptimizerConfig,
    PretrainConfig,
    RunConfig,
    SamplingConfig,
    TissueRunConfig,
    presets,
    read_config,
)
from spaf_train.objectives import OBJECTIVES


def test_every_preset_reads_and_survives_a_round_trip(tmp_path):
    assert "small" in presets()
    for name in presets():
        config = read_config(name)
        path = tmp_path / f"{name}-full.toml"
        path.write_text(config.to_toml())
        assert read_config(path) == config


def test_the_full_configuration_names_every_option():
    text = PretrainConfig().to_toml()
    for field in dataclasses.fields(PretrainConfig().optimizer):
        assert f"{field.name} = " in text
    assert "[objectives.masked_genes]" in text


def test_overrides_take_values_as_in_toml(config_path):
    overrides = ["run.steps=12", "model.drop_path=0", "sampling.input='cells'", "objectives.pairs.enabled=false"]
    config = read_config(config_path, overrides=[*overrides, "run.precision=bf16", 'vocabulary.tissue=["Skin"]'])
    assert config.run.steps == 12
    assert config.model.drop_path == 0.0
    assert config.sampling.input == "cells"
    assert config.run.precision == "bf16"
    assert config.vocabulary.tissue == ("Skin",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rat=1", r"optimizer\.learning_rat is not an option; did you mean learning_rate"),
        ("optimiser.beta1=1", r"optimiser is not an option; did you mean optimizer"),
        ("run.zzz=1", r"run\.zzz is not an option; the options there are: steps, "),
        ("run.steps=1.5", r"run\.steps must be a whole number, not 1\.5"),
        ("run.steps=true", r"run\.steps must be a whole number, not True"),
        ("run.steps=0", r"run: steps must be at least 1"),
        ("run.precision=fp16", r"run\.precision must be one of fp32, bf16, not 'fp16'"),
        ("model.width=30", r"model: n_heads must divide width|model: .*"),
        ("objectives.pairs.enabled=maybe", r"objectives\.pairs\.enabled must be true or false"),
        ("vocabulary.tissue=Skin", r"vocabulary\.tissue must be a list"),
        ("run=3", r"run must be a table"),
        ("seed.x=3", r"seed\.x is not an option: seed is not a table"),
        ("seed", r"section\.option=value"),
        ("seed=-1", r"seed must be at least 0"),
        ("sampling.input=cells", r"objectives\.pairs needs sampling\.input"),
        ("model.pair_input=separate", r"objectives\.pairs needs model\.pair_input = joint"),
    ],
)
def test_mistakes_are_told_in_one_sentence(config_path, override, message):
    overrides = [override, "model.n_heads=4"] if override.startswith("model") else [override]
    with pytest.raises(InputError, match=message) as caught:
        read_config(config_path, overrides=overrides)
    assert "\n" not in str(caught.value)


def test_best_metric_of_a_switched_off_objective_is_refused(config_path):
    with pytest.raises(InputError, match=r"run\.best_metric is auroc_pairs.*choices are: loss, loss_masked_genes"):
        read_config(config_path, overrides=["run.best_metric=auroc_pairs", "objectives.pairs.enabled=false"])


def test_unreadable_sources_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no configuration nowhere.*presets are: .*small"):
        read_config("nowhere")
    path = tmp_path / "broken.toml"
    path.write_text("[run\nsteps = 3")
    with pytest.raises(InputError, match=r"broken\.toml is not a TOML file"):
        read_config(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"broken\.toml is not a text file"):
        read_config(path)


def test_a_preset_of_models_that_are_fitted_is_told_from_one_that_is_not_there():
    for name in ("tissue", "neighbours"):
        with pytest.raises(InputError, match=f"^{name} is a preset of models that are fitted.*: read_tissue_"):
            read_config(name)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PretrainConfig(seed="3"), "seed must be a whole number, not '3'"),
        (lambda: RunConfig(steps="many"), "steps must be a whole number, not 'many'"),
        (lambda: RunConfig(precision="fp8"), "precision must be one of fp32, bf16, not 'fp8'"),
        (lambda: SamplingConfig(thinning="much"), "thinning must be a number, not 'much'"),
        (lambda: SamplingConfig(radius=[30.0]), r"radius must be a number, not \[30.0\]"),
        (lambda: OptimizerConfig(learning_rate=None), "learning_rate must be a number, not None"),
        (lambda: OBJECTIVES["pairs"].Config(enabled="no"), "enabled must be true or false, not 'no'"),
        (lambda: OBJECTIVES["pairs"].Config(weight="1"), "weight must be a number, not '1'"),
        (lambda: GeneTableConfig(path=3), "path must be a text, not 3"),
        (lambda: FinetuneConfig(rank=1.5), "rank must be a whole number, not 1.5"),
        (lambda: EvaluationOptions(radii=30.0), "radii must be a list, not 30.0"),
        (lambda: GeneEmbeddingOptions(dimensions="32"), "dimensions must be a whole number, not '32'"),
        (lambda: TissueRunConfig(threads=None), "threads must be a whole number, not None"),
    ],
)
def test_a_value_of_another_type_is_one_sentence_from_python_too(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()

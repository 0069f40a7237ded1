import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spaf_model import InputError, SpatialFormer, SpatialFormerConfig, Vocabulary, load_model, model_directory
from spaf_model.model_directory import read_model_directory


@pytest.fixture
def directory(model: SpatialFormer, tmp_path: Path) -> Path:
    model.card = "# A card\n"
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_round_trip_to_the_last_bit(model: SpatialFormer, directory: Path) -> None:
    loaded = SpatialFormer.from_pretrained(directory)
    assert loaded.config == model.config
    assert loaded.vocabulary == model.vocabulary
    assert loaded.card == "# A card\n"
    assert not loaded.network.training
    state = loaded.network.state_dict()
    assert list(state) == list(model.network.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.network.state_dict().items())
    assert sorted(file.name for file in directory.iterdir()) == [
        "card.md",
        "config.json",
        "model.safetensors",
        "vocabulary.json",
    ]
    assert [file.name for file in directory.parent.iterdir()] == ["model"]


def test_frozen_table_stays_frozen_and_the_rest_trains(vocabulary: Vocabulary, tmp_path: Path) -> None:
    config = SpatialFormerConfig(width=16, n_layers=1, n_heads=2, train_type_embedding=False)
    SpatialFormer(config, vocabulary).save_pretrained(tmp_path / "model")
    network = SpatialFormer.from_pretrained(tmp_path / "model").network
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["embedding.types.weight"]


def test_all_files_can_be_read_by_the_same_people(directory: Path) -> None:
    assert len({file.stat().st_mode for file in directory.iterdir()}) == 1


def test_config_says_family_version_and_layout(directory: Path) -> None:
    content = json.loads((directory / "config.json").read_text())
    assert (content["family"], content["format_version"]) == ("spatialformer", 1)
    assert content["config"]["attention_layout"] == "[q|k|v][head][dim]"
    assert content["config"]["attention_scale"] == 8**-0.5


def test_saving_again_replaces_and_saving_elsewhere_does_not(model: SpatialFormer, directory: Path) -> None:
    model.card = "new"
    model.save_pretrained(directory)
    assert SpatialFormer.from_pretrained(directory).card == "new"
    other = directory.parent / "precious"
    other.mkdir()
    (other / "data.txt").write_text("mine")
    with pytest.raises(InputError, match="precious exists and is not a model directory"):
        model.save_pretrained(other)
    assert (other / "data.txt").read_text() == "mine"


def test_failure_while_writing_leaves_nothing(
    model: SpatialFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("spaf_model.model_directory.save_file", fail)
    with pytest.raises(OSError, match="No space"):
        model.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_truncated_weights_are_one_sentence(directory: Path) -> None:
    weights = directory / "model.safetensors"
    content = weights.read_bytes()
    for length in (0, 4, len(content) // 2, len(content) - 1):
        weights.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"model\.safetensors is damaged or truncated"):
            SpatialFormer.from_pretrained(directory)


def test_missing_unexpected_and_misshapen_tensors_are_listed(directory: Path) -> None:
    weights = directory / "model.safetensors"
    tensors = load_file(weights)
    del tensors["pair_head.weight"]
    tensors["surplus"] = torch.zeros(1)
    tensors["embedding.norm.bias"] = torch.zeros(5)
    save_file(tensors, weights)
    with pytest.raises(InputError) as error:
        SpatialFormer.from_pretrained(directory)
    message = str(error.value)
    assert "missing: pair_head.weight" in message
    assert "unexpected: surplus" in message
    assert "misshapen: embedding.norm.bias (5,) instead of (32,)" in message


def test_long_lists_are_cut(directory: Path) -> None:
    save_file({"surplus": torch.zeros(1)}, directory / "model.safetensors")
    with pytest.raises(InputError, match=r"missing: .* and \d+ more; unexpected: surplus"):
        SpatialFormer.from_pretrained(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2, and this spaf-model reads up to 1"),
        (
            {"family": "scgpt"},
            r"config\.json: There is no family 'scgpt'; known families: scgpt_spatial, spatialformer",
        ),
        ({"family": 3}, r"config\.json has the family 3, which is no name"),
        ({"config": []}, "no 'config'"),
        ({"config": {"width": "wide"}}, r"config\.json: width must be"),
        ({"config": {"n_tokens": 5}}, r"config\.json and vocabulary\.json do not fit: config\.n_tokens is 5"),
    ],
)
def test_other_configs_are_refused(directory: Path, change: dict[str, object], message: str) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message):
        SpatialFormer.from_pretrained(directory)


def test_a_directory_without_a_family_is_one_of_the_first(directory: Path) -> None:
    file = directory / "config.json"
    content = json.loads(file.read_text())
    del content["family"]
    file.write_text(json.dumps(content))
    assert isinstance(load_model(directory), SpatialFormer)
    assert isinstance(SpatialFormer.from_pretrained(directory), SpatialFormer)


def test_a_vocabulary_without_a_special_token_is_no_spatialformers(directory: Path) -> None:
    file = directory / "vocabulary.json"
    content = json.loads(file.read_text())
    del content["special"]["sep"]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="do not fit: The vocabulary has no special token .sep.; it has: pad, cls"):
        load_model(directory)


def test_what_is_not_a_model_directory(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        SpatialFormer.from_pretrained(tmp_path / "nowhere")
    (directory / "vocabulary.json").unlink()
    with pytest.raises(InputError, match=r"it has no vocabulary\.json"):
        SpatialFormer.from_pretrained(directory)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_written_nor_read(
    model: SpatialFormer, directory: Path, tmp_path: Path, value: float
) -> None:
    good = load_file(directory / "model.safetensors")
    name = "masked_gene_head.bias"
    with torch.no_grad():
        model.network.get_parameter(name)[:2] = value
    for path in (tmp_path / "new", directory):  # also over an older one, which stays
        with pytest.raises(InputError, match=rf"not all finite; nothing was written. {name}: 2 of"):
            model.save_pretrained(path)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))
    SpatialFormer.from_pretrained(directory)
    good[name][1] = value
    save_file(good, directory / "model.safetensors")
    with pytest.raises(InputError, match=rf"model.safetensors cannot be used: .*{name}: 1 of"):
        SpatialFormer.from_pretrained(directory)


def test_running_statistics_that_are_not_finite_are_not_written(model: SpatialFormer, tmp_path: Path) -> None:
    buffers = dict(model.network.named_buffers())
    name = next(name for name in buffers if name.endswith("running_var"))
    buffers[name][0] = float("inf")
    with pytest.raises(InputError, match=rf"{name}: 1 of"):
        model.save_pretrained(tmp_path / "new")


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupt_between_two_renames_loses_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, before: bool
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_text("old")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("new")
    rename, calls = Path.rename, []

    def interrupted(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == step and before:
            raise KeyboardInterrupt
        result = rename(source, target)
        if len(calls) == step:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model_directory._replace(tmp_path / "new", tmp_path / "model")
    model_directory._restore(tmp_path / "model")
    assert (tmp_path / "model" / "file").read_text() == ("new" if step == 2 and not before else "old")
    assert not (tmp_path / ".model.replaced").exists()


def test_a_model_that_a_killed_process_moved_aside_is_named_and_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".model.replaced"
    aside.mkdir()
    with pytest.raises(InputError, match=r"no such folder; .*\.model\.replaced is what a process that was killed"):
        read_model_directory(tmp_path / "model")
    (aside / "notes.txt").write_text("no model")
    model_directory._restore(tmp_path / "model")
    assert (tmp_path / "model" / "notes.txt").exists()
    assert not aside.exists()

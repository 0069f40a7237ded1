"""Published folders: what is read of them, and what is refused with a sentence."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch

from spaf_model import InputError, load_model
from spaf_model.scgpt_spatial import ScGPTSpatial, ScGPTSpatialConfig, ScGPTSpatialNetwork, ValueBatch
from spaf_model.scgpt_spatial.published import convert_published_folder
from spaf_model.scgpt_spatial.published.tensors import published_name

Run = Callable[..., int]


def test_every_tensor_of_v1_is_read(published: Any) -> None:
    model = convert_published_folder(published.save())
    ours = model.network.state_dict()
    assert len(ours) == len(published.tensors)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, published.tensors[published_name(name)], atol=0, rtol=0)
    config = model.config
    assert (config.n_technologies, config.n_experts, config.n_active, config.norm) == (4, 4, 2, "post")
    assert (config.mlp_width, config.max_length, config.asked_projection) == (24, 1200, False)
    vocabulary = model.vocabulary
    assert (vocabulary.pad, vocabulary.cls) == (40, 41)
    assert vocabulary.gene_token_ids.tolist() == list(range(40))
    assert list(vocabulary.context["assay"]) == ["merfish", "visium", "visium_hd", "xenium"]
    np.testing.assert_allclose(vocabulary.scale[:4], [0.5, 1.0, 0.7, 1.0], rtol=1e-6)
    for said in (
        "scGPT-spatial, converted",
        "merfish, visium, visium_hd, xenium",
        "`best_model.pt` | SHA-256",
        "40, of",
    ):
        assert said in model.card


def test_names_of_the_full_size_are_those_of_the_published_layout() -> None:
    with torch.device("meta"):
        ours = ScGPTSpatialNetwork(ScGPTSpatialConfig.published()).state_dict()
    shapes = {published_name(name): tuple(tensor.shape) for name, tensor in ours.items()}
    assert len(shapes) == 189
    assert shapes["encoder.embedding.weight"] == (60697, 512)
    assert shapes["transformer_encoder.layers.11.self_attn.Wqkv.weight"] == (1536, 512)
    assert shapes["decoder.moe.experts.3.fc.0.weight"] == (512, 1024)
    assert shapes["decoder.moe.gate.gate.bias"] == (4,)
    assert shapes["impute_mvc_decoder.W.weight"] == (1024, 512)


def test_a_converted_model_is_saved_and_embeds(
    published: Any, adata: anndata.AnnData, run: Run, tmp_path: Path
) -> None:
    assert run("convert", published.save(), "-o", tmp_path / "model") == 0
    model = load_model(tmp_path / "model")
    assert isinstance(model, ScGPTSpatial)
    model.embed(adata, assay="Xenium")
    assert np.isfinite(adata.obsm["X_SpaF"]).all()
    assert model.card.startswith("# scGPT-spatial, converted")


@pytest.mark.parametrize("layout", ["Wqkv", "in_proj"])
def test_the_parent_in_either_layout(parent: Any, layout: str) -> None:
    if layout == "in_proj":
        parent.tensors = {
            name.replace("Wqkv.weight", "in_proj_weight").replace("Wqkv.bias", "in_proj_bias"): tensor
            for name, tensor in parent.tensors.items()
        }
    model = convert_published_folder(parent.save())
    assert model.config.n_experts == 1
    assert model.config.n_technologies == 0
    assert not model.config.neighbourhood_decoder
    assert model.config.generative
    assert "2 of heads of labels were left out" in model.card
    torch.testing.assert_close(
        model.network.blocks()[1].attention.qkv.weight,
        parent.tensors[
            "transformer_encoder.layers.1.self_attn." + ("Wqkv.weight" if layout == "Wqkv" else "in_proj_weight")
        ],
    )


def test_a_parent_without_flags_cannot_be_asked(parent: Any) -> None:
    del parent.tensors["flag_encoder.weight"]
    model = convert_published_folder(parent.save())
    assert not model.config.generative
    one = torch.zeros((1, 1), dtype=torch.int64)
    batch = ValueBatch(one, one.float(), torch.ones(1), torch.zeros(1), torch.ones(1)).asking(one)
    with pytest.raises(InputError, match="cannot be asked for genes"):
        model.network.encode(batch)


def test_vocabulary_of_the_wheel_and_ids_of_genes(published: Any, tmp_path: Path, run: Run) -> None:
    wheel = published.save_wheel()
    table = tmp_path / "features.tsv.gz"
    rows = [f"ENSG{position:011d}\tGENE{position}\tGene Expression" for position in range(30)]
    rows += ["ENSG00000000900\tGENE31\tGene Expression", "ENSG00000000901\tGENE31\tGene Expression"]
    with gzip.open(table, "wt") as file:
        file.write("\n".join(rows))
    path = published.save(without="vocab.json")
    options = ("--vocabulary-wheel", wheel, "--gene-ids", table)
    assert run("convert", path, *options, "-o", tmp_path / "model") == 0
    vocabulary = load_model(tmp_path / "model").vocabulary
    match = vocabulary.look_up(["ENSG00000000003.4", "GENE31", "ENSG00000000900"])
    assert match.token_ids.tolist() == [3, 31, -1]
    assert vocabulary.pad == 40


def changed(what: str) -> Callable[[Any], dict[str, Any]]:
    """Return what spoils a folder, by name; it returns arguments of `save` or of `convert_published_folder`."""

    def spoil(published: Any) -> dict[str, Any]:
        tensors = published.tensors
        if what.startswith("without "):
            return {"without": what.removeprefix("without ")}
        if what == "missing":
            del tensors["decoder.moe.gate.gate.bias"]
        elif what == "more":
            tensors["cls_decoder.out.weight"] = torch.zeros(2)
        elif what == "shape":
            tensors["mvc_decoder.W.weight"] = torch.zeros(32, 32)
        elif what == "nan":
            tensors["flag_encoder.weight"][0, 0] = np.nan
        elif what == "short":
            published.vocabulary.popitem()
        elif what == "no cls":
            published.vocabulary["other"] = published.vocabulary.pop("<cls>")
        elif what == "ids":
            published.vocabulary["GENE3"] = 2
        elif what == "heads":
            del published.args["nheads"]
        elif what == "heads do not divide":
            published.args["nheads"] = 5
        elif what == "style":
            published.args["input_emb_style"] = "category"
        elif what == "mean id":
            published.means.append((43, 1.0))
        elif what == "mean twice":
            published.means.append((2, 1.0))
        elif what == "mean zero":
            published.means[3] = (6, 0.0)
        elif what == "technology":
            published.technologies["cosmx"] = 4
        elif what == "technology number":
            published.technologies["xenium"] = 9
        elif what == "numbers":
            tensors["step"] = 3
        elif what == "pad":
            published.args["pad_token_id"] = 0
            return {"args_file": "config.json"}
        return {}

    return spoil


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("without batch_mapping_dict.json", "has no batch_mapping_dict.json; a folder of scGPT-spatial holds best_mod"),
        ("without all_dict_mean_std.csv", "has no all_dict_mean_std.csv; a folder of scGPT-spatial"),
        ("without vocab.json", "has no vocab.json; a folder"),
        ("without args.json", "has no args.json; a folder"),
        ("without best_model.pt", "has no best_model.pt; a folder"),
        ("missing", r"missing: decoder\.moe\.gate\.gate\.bias"),
        ("more", r"unexpected: cls_decoder\.out\.weight"),
        ("shape", r"misshapen: mvc_decoder\.W\.weight \(32, 32\) instead of \(64, 32\)"),
        ("nan", r"tensor flag_encoder\.weight has values that are not finite"),
        ("short", r"vocab\.json has 42 tokens, but the gene table of best_model\.pt has 43 rows"),
        ("no cls", r"vocab\.json is not a vocabulary of scGPT: it has no token '<cls>'"),
        ("ids", r"vocab\.json must use each id from 0 to 42 once"),
        ("heads", r"args\.json does not record the number of attention heads"),
        ("heads do not divide", r"args\.json records sizes that cannot be: n_heads must divide width"),
        ("style", r"args\.json records input_emb_style 'category'; only 'continuous' is understood"),
        ("mean id", r"all_dict_mean_std\.csv gives a mean to '43', which is no id below 43"),
        ("mean twice", r"all_dict_mean_std\.csv gives token 2 more than one mean"),
        ("mean zero", r"all_dict_mean_std\.csv gives token 6 a mean that is not above 0"),
        ("technology", r"batch_mapping_dict\.json has 5 technologies, but best_model\.pt has 4"),
        ("technology number", r"batch_mapping_dict\.json must use each number from 0 to 3 once"),
        ("numbers", "has a int under 'step' where a tensor is expected"),
        (
            "pad",
            r"config\.json records pad_token_id 0, which is 'GENE0' in vocab\.json, where '<pad>' is 40: its maker",
        ),
    ],
)
def test_what_is_refused_is_one_sentence_and_nothing_is_written(
    published: Any, what: str, sentence: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.save(**changed(what)(published))
    with pytest.raises(InputError, match=sentence):
        convert_published_folder(published.path)
    assert run("convert", published.path, "-o", tmp_path / "model") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "model").exists()


def test_a_ported_folder_whose_padding_is_right(parent: Any) -> None:
    parent.args["pad_token_id"] = 40
    parent.args["hidden_size"] = parent.args.pop("embsize")
    assert convert_published_folder(parent.save(args_file="config.json")).config.width == 32


def test_files_that_are_not_what_they_should_be(published: Any, tmp_path: Path) -> None:
    path = published.save()
    (path / "vocab.json").write_text('{"A": 0, "A": 1}')
    with pytest.raises(InputError, match=r"vocab\.json has 'A' more than once"):
        convert_published_folder(path)
    (path / "vocab.json").write_text("{")
    with pytest.raises(InputError, match=r"vocab\.json is not valid JSON"):
        convert_published_folder(path)
    with pytest.raises(InputError, match=r"is not a published folder: it has neither best_model\.pt nor args\.json"):
        convert_published_folder(tmp_path)
    published.save()
    (path / "all_dict_mean_std.csv").write_text("id,std\n0,1\n")
    with pytest.raises(InputError, match=r"has no column 'mean'; it has: std"):
        convert_published_folder(path)
    torch.save({"x": print}, path / "best_model.pt")
    with pytest.raises(InputError, match="asks for .*print and was not loaded"):
        convert_published_folder(path)
    torch.save([1, 2], path / "best_model.pt")
    with pytest.raises(InputError, match="it must hold tensors by name"):
        convert_published_folder(path)
    table = tmp_path / "none.csv"
    table.write_text("a,b\n1,2\n")
    published.save()
    with pytest.raises(InputError, match="has no column of Ensembl ids"):
        convert_published_folder(path, gene_ids=table)
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("x", json.dumps({}))
    with pytest.raises(InputError, match="is not a wheel of scgpt"):
        convert_published_folder(path, wheel=tmp_path / "other.whl")
    with pytest.raises(InputError, match="is not a wheel, or is damaged"):
        convert_published_folder(path, wheel=table)


def test_options_of_the_other_kind(
    published: Any, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published.save()
    assert run("convert", path, "--attention", "flash", "-o", tmp_path / "model") == 2
    assert f"--attention belongs to a SpatialFormer checkpoint, and {path} is a folder" in _one(capsys)
    file = path / "best_model.pt"
    assert run("convert", file, "--vocabulary-wheel", file, "-o", tmp_path / "model") == 2
    assert "--vocabulary-wheel belongs to a folder, of scGPT-spatial, and" in _one(capsys)


def _one(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]

"""Folders in the published layouts, of small sizes, with random weights."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

D, HIDDEN, N_LAYERS, N_GENES = 32, 24, 2, 40
SPECIAL = ["<pad>", "<cls>", "<eoc>"]
TECHNOLOGIES = ["merfish", "visium", "visium_hd", "xenium"]


def shapes(*, spatial: bool, n_tokens: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the reference lists them."""
    found: dict[str, tuple[int, ...]] = {"encoder.embedding.weight": (n_tokens, D), "flag_encoder.weight": (2, D)}

    def linear(name: str, n_out: int, n_in: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (n_out, n_in), (n_out,)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (D,)

    norm("encoder.enc_norm")
    linear("value_encoder.linear1", D, 1)
    linear("value_encoder.linear2", D, D)
    norm("value_encoder.norm")
    for layer in range(N_LAYERS):
        prefix = f"transformer_encoder.layers.{layer}"
        linear(f"{prefix}.self_attn.Wqkv", 3 * D, D)
        linear(f"{prefix}.self_attn.out_proj", D, D)
        linear(f"{prefix}.linear1", HIDDEN, D)
        linear(f"{prefix}.linear2", D, HIDDEN)
        norm(f"{prefix}.norm1")
        norm(f"{prefix}.norm2")
    read = 2 * D if spatial else D
    decoders = [f"decoder.moe.experts.{expert}.fc" for expert in range(4)] if spatial else ["decoder.fc"]
    for decoder in decoders:
        linear(f"{decoder}.0", D, read)
        linear(f"{decoder}.2", D, D)
        linear(f"{decoder}.4", 1, D)
    for decoder in ("mvc_decoder", "impute_mvc_decoder") if spatial else ("mvc_decoder",):
        linear(f"{decoder}.gene2query", D, D)
        found[f"{decoder}.W.weight"] = (read, D)
    if spatial:
        found["batch_encoder.embedding.weight"] = (4, D)
        norm("batch_encoder.enc_norm")
        linear("decoder.moe.gate.gate", 4, read)
    else:
        linear("cls_decoder._decoder.0", D, D)
    return found


@dataclasses.dataclass
class Published:
    """What a published folder is made of; `save` writes it, with changes."""

    path: Path
    spatial: bool = True

    def __post_init__(self) -> None:
        genes = [f"GENE{position}" for position in range(N_GENES)]
        self.vocabulary = {name: position for position, name in enumerate([*genes, *SPECIAL])}
        generator = torch.Generator().manual_seed(4)
        self.tensors: dict[str, Any] = {
            name: torch.randn(shape, generator=generator) * (0.2 if len(shape) == 2 else 0.1) + (len(shape) == 1)
            for name, shape in shapes(spatial=self.spatial, n_tokens=len(self.vocabulary)).items()
        }
        self.args: dict[str, Any] = {
            "nlayers": N_LAYERS, "nheads": 4, "embsize": D, "d_hid": HIDDEN, "dropout": 0.2, "n_bins": 51,
            "pad_token": "<pad>", "pad_value": -2, "mask_value": -1, "max_seq_len": 600,
            "input_emb_style": "continuous",
        }  # fmt: skip
        self.means: list[tuple[object, object]] = [(token, 0.5 + token / 10) for token in range(0, N_GENES, 2)]
        self.technologies = {name: number for number, name in enumerate(TECHNOLOGIES)}

    def save(self, *, without: str = "", args_file: str = "args.json") -> Path:
        self.path.mkdir(exist_ok=True)
        torch.save(self.tensors, self.path / "best_model.pt")
        (self.path / args_file).write_text(json.dumps(self.args))
        (self.path / "vocab.json").write_text(json.dumps(self.vocabulary))
        if self.spatial:
            rows = "".join(f"{token},{mean}\n" for token, mean in self.means)
            (self.path / "all_dict_mean_std.csv").write_text(f",mean\n{rows}")
            (self.path / "batch_mapping_dict.json").write_text(json.dumps(self.technologies))
        if without:
            (self.path / without).unlink()
        return self.path

    def save_wheel(self) -> Path:
        wheel = self.path.with_name("scgpt-0-py3-none-any.whl")
        genes = {name: token for name, token in self.vocabulary.items() if name not in SPECIAL}
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("scgpt/tokenizer/default_census_vocab.json", json.dumps(genes))
        return wheel


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path / "v1")


@pytest.fixture
def parent(tmp_path: Path) -> Published:
    return Published(tmp_path / "human", spatial=False)

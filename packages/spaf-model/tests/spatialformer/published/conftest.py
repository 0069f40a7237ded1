"""A small checkpoint by the names and shapes of the published code, with weights made by a formula."""

import dataclasses
import json
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

WIDTH, N_LAYERS, N_HEADS, N_TOKENS, SEP = 32, 2, 4, 60, 40
NAMES = (
    "<PAD> <CLS> <MASK> Human Mouse Merfish Xenium CosMx Lung Bone Brain Breast Cervix Colon Heart Liver Lymph_Node "
    "Ovary Pancreas Prostate Skin Tonsil Kidney LymphNode BoneMarrow Healthy Disease"
)


def shapes_of(version: str) -> dict[str, tuple[int, ...]]:
    d = WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "log_sigma_class": (1,),
        "log_sigma_reg1": (1,),
        "log_sigma_reg2": (1,),
        "encoder.emb_proj.weight": (d, 5 * d),
        "encoder.emb_proj.bias": (d,),
        "encoder.norm.weight": (d,),
        "encoder.norm.bias": (d,),
        "encoder.bpp_feature_proj.weight": (d, 3),
        "encoder.bpp_feature_proj.bias": (d,),
        "encoder.bpp_convnet.conv1.conv.conv.weight": (64, 1, 7, 7),
        "encoder.bpp_convnet.conv1.conv.conv.bias": (64,),
        "encoder.bpp_convnet.conv2.conv.conv.weight": (N_HEADS, 64, 7, 7),
        "encoder.bpp_convnet.conv2.conv.conv.bias": (N_HEADS,),
        "classifier_head.weight": (N_TOKENS, d),
        "classifier_head.bias": (N_TOKENS,),
        "pair_head.weight": (2, d),
        "embeddings.weight": (N_TOKENS, d),
        "token_type_embeddings.weight": (3, d),
        "spatialembeds.emb.weight": (N_TOKENS, d),
    }
    for layer in range(N_LAYERS):
        convolution = f"encoder.layers.{layer}.conv_blocks.0"
        attention = f"encoder.layers.{layer}.attn_blocks.0"
        linear = {
            f"{convolution}.expand_conv": (2 * d, d),
            f"{convolution}.conv_proj": (d, d),
            f"{attention}.self_attn.qkv": (3 * d, d),
            f"{attention}.self_attn.proj": (d, d),
        }
        vectors = [f"{convolution}.conv_norm"]
        shapes[f"{convolution}.conv.conv.conv.weight"] = (d, 1, 17)
        shapes[f"{convolution}.conv_norm.running_mean"] = (d,)
        shapes[f"{convolution}.conv_norm.running_var"] = (d,)
        shapes[f"{convolution}.conv_norm.num_batches_tracked"] = ()
        for block, branch in ((convolution, "conv_scale"), (attention, "attn_scale")):
            linear |= {f"{block}.mlp.ffn1": (4 * d, d), f"{block}.mlp.ffn2": (d, 2 * d)}
            vectors += [f"{block}.norm1", f"{block}.norm2"]
            for affine in (branch, "mlp_scale"):
                shapes |= {f"{block}.{affine}.scale": (d,), f"{block}.{affine}.bias": (d,)}
        for name, shape in linear.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in vectors:
            shapes |= {f"{name}.weight": (d,), f"{name}.bias": (d,)}
    if version == "v1":
        shapes["adjprojector.fc.weight"] = (1, 2 * d)
    else:
        shapes |= {"adjprojector.project_i.weight": (128, d), "adjprojector.project_j.weight": (128, d)}
    return shapes


def formula(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Values that look random and are the same everywhere; the published numbers of the tests belong to them."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    x = np.sin((np.arange(int(np.prod(shape))) + 1) * 12.9898 + zlib.crc32(name.encode()) % 1000) * 43758.5453
    x = (2 * (x - np.floor(x)) - 1).reshape(shape)
    if name.endswith("running_var"):
        x = np.abs(x) + 0.5
    elif len(shape) < 2:
        x = 0.2 * x + (1.0 if name.endswith(("weight", "scale")) else 0.0)
    else:
        x = x * 1.5 * shape[-1] ** -0.5
    return torch.tensor(x, dtype=torch.float32)


@dataclasses.dataclass
class Published:
    """Published files in a folder; `save` writes the checkpoint."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def vocabulary(self) -> Path:
        return self.folder / "tokenv5.json"

    @property
    def scale(self) -> Path:
        return self.folder / "gene_median.pkl"

    @property
    def wheel(self) -> Path:
        return self.folder / "spatialformer-0.1.8-py3-none-any.whl"

    def save(
        self,
        version: str = "v2",
        *,
        hyper_parameters: dict[str, Any] | None = None,
        change: Callable[[dict[str, Any]], object] = lambda tensors: None,
    ) -> None:
        tensors: dict[str, Any] = {name: formula(name, shape) for name, shape in shapes_of(version).items()}
        change(tensors)
        sizes = {"dim_model": WIDTH, "nlayers": N_LAYERS, "nheads": N_HEADS}
        content = {
            "epoch": 0,
            "global_step": 196_000,
            "state_dict": tensors,
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
            "hyper_parameters": sizes | (hyper_parameters or {}),
        }
        torch.save(content, self.checkpoint)


def token_ids() -> dict[str, int]:
    names = [name.replace("_", " ") for name in NAMES.split()]
    genes = iter(f"GENE{position}" for position in range(N_TOKENS))
    names += ["<SEP>" if token == SEP else next(genes) for token in range(len(names), N_TOKENS)]
    return {name: token for token, name in enumerate(names)}


@pytest.fixture
def published(tmp_path: Path) -> Published:
    """A folder with the published files, the wheel included: v1 there has ten tokens fewer."""
    files = Published(tmp_path)
    ids = token_ids()
    files.vocabulary.write_text(json.dumps(ids))
    medians = {"GENE0": 4, "GENE1": np.float64(2.5), "GENE30": np.float64(3.0), "OTHER": np.float64(9.0)}
    files.scale.write_bytes(pickle.dumps(medians, protocol=4))
    fewer = {name: token for name, token in ids.items() if token < N_TOKENS - 10}
    with zipfile.ZipFile(files.wheel, "w") as archive:
        archive.writestr("spatialformer/tokenizer/tokenv5.json", json.dumps(ids))
        archive.writestr("spatialformer/tokenizer/tokenv4.json", json.dumps(fewer))
        archive.write(files.scale, "spatialformer/data/gene_median.pkl")
    return files

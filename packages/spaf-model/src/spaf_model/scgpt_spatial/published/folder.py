"""What is in a published folder: which model it is of, and how its sizes are recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from spaf_model.checkpoints import check_tensors, read_weights_only
from spaf_model.errors import InputError
from spaf_model.scgpt_spatial.config import ScGPTSpatialConfig
from spaf_model.scgpt_spatial.published.tensors import with_one_layout
from spaf_model.scgpt_spatial.published.vocabulary import read_json

Kind = Literal["scGPT-spatial", "scGPT"]

WEIGHTS, ARGS, VOCABULARY = "best_model.pt", "args.json", "vocab.json"
MEANS, TECHNOLOGIES = "all_dict_mean_std.csv", "batch_mapping_dict.json"
PORTED_ARGS = "config.json"
_PORTED_WEIGHTS = (WEIGHTS, "pytorch_model.bin", "model.pt")
_OF_SPATIAL = ("decoder.moe.", "batch_encoder.", "impute_mvc_decoder.")
_FILES: dict[Kind, tuple[str, ...]] = {
    "scGPT-spatial": (WEIGHTS, ARGS, VOCABULARY, MEANS, TECHNOLOGIES),
    "scGPT": (WEIGHTS, ARGS, VOCABULARY),
}
# Ours -> what folders call it, the published name first.
_SIZES = {
    "width": ("embsize", "hidden_size", "layer_size"),
    "n_layers": ("nlayers", "num_hidden_layers", "num_layers"),
    "n_heads": ("nheads", "nhead", "num_attention_heads"),
    "mlp_width": ("d_hid", "intermediate_size", "ffn_dim"),
    "dropout": ("dropout", "hidden_dropout_prob"),
    "n_bins": ("n_bins",),
}
_VALUES = {"pad_value": -2, "mask_value": -1}  # what the tokens of this family have there
# Recorded -> the only value that is understood.
_UNDERSTOOD = {"input_emb_style": "continuous", "input_style": "binned", "binning_style": "quantile"}
# How the SHA-256 of files begin that are known. All of them were not at hand.
_KNOWN = {
    "1ce6a9ea": "best_model.pt of scGPT_spatial_v1",
    "6cb5d451": "best_model.pt of the whole-human scGPT",
    "c18e075e": "args.json of the whole-human scGPT",
    "acca93d1": "vocab.json of the whole-human scGPT",
    "9fe73cf29929b5c6": "default_census_vocab.json of scgpt 0.2.4",
}


@dataclasses.dataclass(frozen=True)
class PublishedFolder:
    """A published folder whose weights were read."""

    path: Path
    kind: Kind
    weights: Path
    tensors: dict[str, torch.Tensor]  # by published names, in one layout
    args_file: Path
    args: dict[str, Any]

    @property
    def pad(self) -> str:
        """The token of padding."""
        return str(self.args.get("pad_token", "<pad>"))

    def config(self) -> ScGPTSpatialConfig:
        """Return the configuration that the folder describes.

        Raises
        ------
        InputError
            If the number of heads is not recorded, or a recorded value cannot be or is of another kind of model.
        """
        for name, understood in {**_UNDERSTOOD, **_VALUES}.items():
            if self.args.get(name, understood) != understood:
                raise InputError(
                    f"{self.args_file.name} records {name} {self.args[name]!r}; only {understood!r} is understood."
                )
        recorded = {ours: self._recorded(names) for ours, names in _SIZES.items()}
        changed = {ours: value for ours, value in recorded.items() if value is not None}
        if "n_heads" not in changed:
            raise InputError(f"{self.args_file.name} does not record the number of attention heads (nheads).")
        if "dropout" in changed:
            changed["attention_dropout"] = changed["dropout"]
        table = self.tensors.get("encoder.embedding.weight")
        technologies = self.tensors.get("batch_encoder.embedding.weight")
        experts = {name.split(".")[3] for name in self.tensors if name.startswith("decoder.moe.experts.")}
        changed |= {
            "n_tokens": 1 if table is None else table.shape[0],
            "n_technologies": 0 if technologies is None else technologies.shape[0],
            "n_experts": max(len(experts), 1),
            "generative": self.kind == "scGPT-spatial" or "flag_encoder.weight" in self.tensors,
            "neighbourhood_decoder": self.kind == "scGPT-spatial",
        }
        if changed["n_experts"] == 1:
            changed["n_active"] = 1
        try:
            return dataclasses.replace(ScGPTSpatialConfig.published(), **changed)
        except InputError as error:
            raise InputError(f"{self.args_file.name} records sizes that cannot be: {error}") from error

    def _recorded(self, names: tuple[str, ...]) -> Any:
        return next((self.args[name] for name in names if name in self.args), None)


def read_folder(path: Path, *, has_vocabulary: bool) -> PublishedFolder:
    """Read weights and arguments of a published folder, of scGPT-spatial or of its parent.

    Parameters
    ----------
    path
        The folder.
    has_vocabulary
        Whether the vocabulary comes from elsewhere, so that ``vocab.json`` may be missing.

    Raises
    ------
    InputError
        If a file is missing or is not what it should be.
    """
    args_file = path / ARGS
    is_ported = not args_file.is_file() and (path / PORTED_ARGS).is_file()
    args_file = path / PORTED_ARGS if is_ported else args_file
    weights = next((path / name for name in _PORTED_WEIGHTS if is_ported and (path / name).is_file()), path / WEIGHTS)
    if not weights.is_file():
        if not args_file.is_file():
            raise InputError(f"{path} is not a published folder: it has neither {WEIGHTS} nor {ARGS}.")
        _refuse_missing(path, "scGPT", [weights.name])
    tensors = read_weights_only(weights)
    if not isinstance(tensors, Mapping) or not tensors:
        raise InputError(f"{weights} is not a published checkpoint: it must hold tensors by name.")
    check_tensors(weights, tensors)
    kind: Kind = "scGPT-spatial" if any(str(name).startswith(_OF_SPATIAL) for name in tensors) else "scGPT"
    if "encoder.embedding.weight" not in tensors:
        raise InputError(f"{weights} is not a published checkpoint: it has no tensor encoder.embedding.weight.")
    needed = [name for name in _FILES[kind] if not (name == VOCABULARY and has_vocabulary)]
    there = {ARGS: args_file, WEIGHTS: weights}
    missing = [name for name in needed if not there.get(name, path / name).is_file()]
    if missing:
        _refuse_missing(path, kind, missing)
    return PublishedFolder(
        path=path, kind=kind, weights=weights, tensors=with_one_layout(tensors), args_file=args_file,
        args=read_json(args_file),
    )  # fmt: skip


def _refuse_missing(path: Path, kind: Kind, missing: list[str]) -> None:
    raise InputError(f"{path} has no {', '.join(missing)}; a folder of {kind} holds {', '.join(_FILES[kind])}.")


def known_as(sha256: str) -> str:
    """Say which known file begins with such a SHA-256; empty if none does."""
    return next((name for begin, name in _KNOWN.items() if sha256.startswith(begin)), "")

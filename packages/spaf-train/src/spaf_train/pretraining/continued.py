"""Continual pre-training: a run that begins with the weights of a model, and with its vocabulary made longer."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spaf_model import CONTEXT_KINDS, InputError, Model, Vocabulary, load_model
from spaf_train._checks import require

if TYPE_CHECKING:
    from spaf_train.pretraining.config import PretrainConfig

# Sizes that follow from a vocabulary: None until a model is made with one.
_OF_VOCABULARY = ("n_tokens", "n_technologies")


@dataclasses.dataclass(frozen=True)
class Continued:
    """The model that a run continues, and where it came from."""

    model: Model[Any, Any]
    account: dict[str, Any]  # name, sha256 of the weights, and the numbers of tokens that were added

    def sentence(self) -> str:
        """Say it for the card."""
        account = self.account
        return (
            f"Continued from the model `{account['name']}` (SHA-256 of its weights {account['sha256']}), with "
            f"{account['n_new_genes']:,} genes and {account['n_new_contexts']:,} words of context that it did not "
            "know; ids of the others are as they were, and the optimizer began anew"
        )


def read_source(config: PretrainConfig) -> Model[Any, Any] | None:
    """Return the model that a configuration names to continue from, or None.

    Raises
    ------
    InputError
        If there is none of that name, it is of another family, or gene vectors are to replace its own.
    """
    if config.continue_from is None:
        return None
    model = load_model(config.continue_from)
    require(
        model.family == config.family,
        f"{config.continue_from} is a model of the family {model.family!r}, and this configuration trains "
        f"{config.family!r}; choose a preset of the family {model.family!r}, or set model.family={model.family}.",
    )
    require(
        config.gene_embeddings.path is None,
        "gene_embeddings.path is given, and a run that continues a model has that model's gene vectors; leave it out.",
    )
    return model


def open_config(model: Model[Any, Any]) -> Any:
    """Return the configuration of a model, open to another vocabulary."""
    known = {field.name for field in dataclasses.fields(model.config)}
    return dataclasses.replace(model.config, **dict.fromkeys(known.intersection(_OF_VOCABULARY)))


def continued(source: Model[Any, Any], wanted: Vocabulary, *, seed: int) -> Continued:
    """Make a model that goes on where another ended.

    Parameters
    ----------
    source
        The model.
    wanted
        Vocabulary that a new model of the data would have: what of it the source does not know gets a token behind the
        others.
    seed
        Of the vectors of new tokens.

    Raises
    ------
    InputError
        If none of the genes of the data is known to the source.

    Notes
    -----
    New rows of a table are drawn around the mean of its rows with their spread, so that a new gene begins as one gene
    among many; a new number of a vector, such as a dispersion, begins at the mean.
    """
    vocabulary, n_genes, n_contexts = extended(source.vocabulary, wanted)
    model = type(source)(open_config(source), vocabulary, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    old, new = source.network.state_dict(), model.network.state_dict()
    tensors = {name: _grown(old[name].cpu(), tensor, generator) for name, tensor in new.items()}
    model.network.load_state_dict(tensors)
    account = {
        "name": str(source.source).rstrip("/").rsplit("/", 1)[-1],
        "sha256": _sha256(old),
        "n_new_genes": n_genes,
        "n_new_contexts": n_contexts,
    }
    return Continued(model, account)


def check_same_source(now: Continued | None, state: dict[str, Any] | None) -> None:
    """Raise InputError if a run that is taken up again began with other weights."""
    if state is None:
        return
    known = state["identity"].get("continued_from")
    same = known is now if known is None or now is None else known["sha256"] == now.account["sha256"]
    require(
        same,
        "The run in this folder began with the weights of another model than continue_from (--from) names now; name "
        "that one, or choose another folder.",
    )


def extended(old: Vocabulary, wanted: Vocabulary) -> tuple[Vocabulary, int, int]:
    """Return a vocabulary with what another has beside, behind the tokens that keep their ids.

    Returns
    -------
    tuple
        The vocabulary, and the numbers of genes and of words of context that are new.
    """
    genes = wanted.gene_token_ids
    symbols = [wanted.tokens[token] for token in genes]
    gene_ids = None if wanted.gene_ids is None else [wanted.gene_ids[token] for token in genes]
    found = old.look_up(symbols, gene_ids).token_ids
    require(
        bool((found >= 0).any()),
        f"None of the genes of the corpus (like {', '.join(symbols[:3])}) is known to the model that is to be "
        f"continued, which has genes like {', '.join(old.tokens[token] for token in old.gene_token_ids[:3])}.",
    )
    taken = set(old.tokens)
    added = [place for place in np.flatnonzero(found < 0) if symbols[place] not in taken]
    tokens = [*old.tokens, *(symbols[place] for place in added)]
    scale = [*old.scale.tolist(), *wanted.scale[genes[added]].tolist()]
    ids = None
    if old.gene_ids is not None or gene_ids is not None:
        ids = list(old.gene_ids) if old.gene_ids is not None else [""] * old.n_tokens
        ids += ["" if gene_ids is None else gene_ids[place] for place in added]
    context = {kind: dict(old.context[kind]) for kind in CONTEXT_KINDS}
    n_contexts = 0
    for kind in CONTEXT_KINDS:
        lower = {name.lower() for name in context[kind]}
        # A family that reads none of a kind is not given it by new data.
        for name in wanted.context[kind] if context[kind] else ():
            if name.lower() not in lower:
                context[kind][name] = len(tokens)
                tokens.append(f"{kind}:{name}")
                scale.append(1.0)
                if ids is not None:
                    ids.append("")
                n_contexts += 1
    vocabulary = Vocabulary(tokens, special=old.special, context=context, scale=scale, gene_ids=ids)
    return vocabulary, len(added), n_contexts


def _grown(old: torch.Tensor, new: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a tensor in the shape of another: rows that were there as they were, the rest drawn like them."""
    if old.shape == new.shape:
        return old.clone()
    grows = [axis for axis in range(old.ndim) if old.shape[axis] != new.shape[axis]]
    if old.ndim != new.ndim or grows != [0] or old.shape[0] > new.shape[0]:
        raise InputError(f"A tensor of shape {tuple(old.shape)} cannot be continued as one of {tuple(new.shape)}.")
    more = new.shape[0] - old.shape[0]
    rows = old.float().mean(dim=0, keepdim=True).expand(more, *old.shape[1:])
    if old.ndim > 1:
        rows = rows + old.float().std(dim=0, correction=0) * torch.randn((more, *old.shape[1:]), generator=generator)
    return torch.cat([old, rows.to(old.dtype)])


def _sha256(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of weights: of names, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else tensor.numpy().tobytes())
    return digest.hexdigest()

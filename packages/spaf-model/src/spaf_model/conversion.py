"""Published checkpoints of every family, as ``spaf-model convert`` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaf_model.errors import InputError
from spaf_model.scgpt_spatial.published import convert_published_folder
from spaf_model.spatialformer import AttentionVariant, convert_published

if TYPE_CHECKING:
    from spaf_model.model import Model


def import_published(
    source: Path,
    *,
    vocabulary: Path | None = None,
    scale: Path | None = None,
    from_wheel: Path | None = None,
    attention: AttentionVariant | None = None,
    vocabulary_wheel: Path | None = None,
    gene_ids: Path | None = None,
) -> Model[Any, Any]:
    """Make a model from what was published: a file is a SpatialFormer, a folder a scGPT-spatial or its parent.

    Parameters
    ----------
    source
        The checkpoint, or the folder.
    vocabulary, scale, from_wheel, attention
        Of a file, as for `convert_published`.
    vocabulary_wheel, gene_ids
        Of a folder, as for `convert_published_folder`.

    Raises
    ------
    InputError
        If an option belongs to the other kind, and as those functions.
    """
    if not source.exists():
        raise InputError(f"There is no file or folder {source}.")
    of_files = {"vocabulary": vocabulary, "scale": scale, "from-wheel": from_wheel, "attention": attention}
    of_folders = {"vocabulary-wheel": vocabulary_wheel, "gene-ids": gene_ids}
    is_folder = source.is_dir()
    surplus = [name for name, given in (of_files if is_folder else of_folders).items() if given is not None]
    if surplus:
        kinds = ("a folder, of scGPT-spatial", "a SpatialFormer checkpoint")
        raise InputError(
            f"--{surplus[0]} belongs to {kinds[is_folder]}, and {source} is {'a folder' if is_folder else 'no folder'}."
        )
    if is_folder:
        return convert_published_folder(source, wheel=vocabulary_wheel, gene_ids=gene_ids)
    return convert_published(source, vocabulary=vocabulary, scale=scale, wheel=from_wheel, attention=attention)

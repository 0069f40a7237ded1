"""The call of the published project, so that code written for it runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from spaf_model.cell_source import CellSource
from spaf_model.errors import InputError
from spaf_model.inputs import Cells, table_of
from spaf_model.options import ReadingOptions
from spaf_model.pairs import CellNames, pair_positions
from spaf_model.spatialformer.model import COLOCALIZATION_KEY, SpatialFormer
from spaf_model.spatialformer.published.checkpoint import read_checkpoint
from spaf_model.spatialformer.published.convert import FLASH_KEY, AttentionVariant, convert_published
from spaf_model.spatialformer.published.vocabulary import MEDIANS_FILE, TOKEN_FILES
from spaf_model.spatialformer.tokeniser import sequence_lengths

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger(__name__)

Mode = Literal["single", "pair"]

_METHODS = ("cls", "gene")
# What may follow the condition by position: with the assay since 0.1.8, without it before.
_POSITIONAL = ("method", "model_ckp_path", "batch_size")
_POSITIONAL_WITH_ASSAY = ("assay", *_POSITIONAL)
# What the published code labels every cell.
_PUBLISHED_CONTEXT = {"species": "Human", "assay": "Xenium"}


def embed_data(
    adata: Cells,
    tissue: str | None = None,
    condition: str | None = None,
    *positional: Any,
    method: str | None = None,
    model_ckp_path: str | Path | None = None,
    batch_size: int | None = None,
    mode: Mode = "single",
    threshold: float = 0.8,
    left_cell: CellNames | None = None,
    right_cell: CellNames | None = None,
    num_workers: int = 0,
    assay: str | None = None,
    species: str | None = None,
    reveal_name: bool = False,
    max_len: int | None = None,
    reverse_check: bool | None = None,
    use_flash_attn: bool | None = None,
    token_path: str | Path | None = None,
    gene_median_path: str | Path | None = None,
    vocabulary: str | Path | None = None,
    scale: str | Path | None = None,
    wheel: str | Path | None = None,
    attention: AttentionVariant | None = None,
    layer: str | None = None,
    table_key: str | None = None,
    device: str | None = None,
    only_loader: bool = False,
    config_path: str | Path | None = None,
    pair_label: Sequence[int] | None = None,
    resume_before_5k: bool | None = None,
) -> anndata.AnnData | tuple[np.ndarray, list[torch.Tensor]]:
    """Embed cells or pairs of cells by the call of the published SpatialFormer.

    It takes the arguments of ``spatialformer.tl.embed_data`` (0.1.8) and returns what that returns. New code is better
    off with `SpatialFormer.embed`, `SpatialFormer.embed_pairs` and `SpatialFormer.predict_colocalization`.

    Parameters
    ----------
    adata
        Raw counts, cells x genes. Genes are found by ``var["gene_name"]``, ``var_names`` or Ensembl ids.
    tissue, condition
        Context of all cells; where None, the ``obs`` column of that name. There is no default.
    *positional
        ``method, model_ckp_path, batch_size`` by position or, in the order of 0.1.8, ``assay, method, model_ckp_path,
        batch_size``.
    method
        ``"cls"`` (the default) or ``"gene"``, in upper or lower case.
    model_ckp_path
        A model directory, or a published ``.ckpt``.
    batch_size
        Memory of a batch, in cells or pairs as long as the longest (16 by default): the setting to lower when memory
        runs out. Shorter ones are batched in greater number. Results do not depend on it.
    mode
        ``"single"`` or ``"pair"``.
    threshold
        Least probability of the gene pairs of `reveal_name`.
    left_cell, right_cell
        The two cells of each pair: names, or positions.
    num_workers
        Any number; nothing here needs workers.
    assay, species
        Context, as `tissue`. Where neither the argument nor an ``obs`` column says, they are what the published code
        labels every cell, Xenium and Human, with a warning.
    reveal_name
        Also predict gene pairs: ``obs["Gene_Pairs"]``, a list of [gene, gene] for each cell, and the sparse form of
        `SpatialFormer.predict_colocalization`. An h5ad can hold the second, and no column of lists.
    max_len
        Keep so many of the highest-ranked genes a cell.
    reverse_check
        In pair mode, read each pair in both orders and average. Without it a pair is read once, the left cell first.
    use_flash_attn
        Which attention a ``.ckpt`` was trained with, where it does not record that itself; else it changes nothing,
        since another attention than that of the training gives wrong results.
    attention
        ``"flash"`` or ``"explicit"``: goes before what the ``.ckpt`` records.
    vocabulary, scale, wheel
        For a ``.ckpt``: its token file and ``gene_median.pkl``, or the published wheel that holds both (see
        `convert_published`). `token_path` and `gene_median_path` are their published names. Where none is given, they
        are looked for beside the checkpoint.
    layer, table_key
        Layer with the counts (None is X), and table of a SpatialData.
    device
        Where to compute; None takes a GPU if there is one.
    token_path, gene_median_path, only_loader, config_path, pair_label, resume_before_5k
        Arguments of the published call. `only_loader` is refused; the last three change nothing.

    Returns
    -------
    AnnData, or (embeddings, probabilities)
        In single mode the AnnData itself, with ``obsm["X_SpaF"]``. In pair mode embeddings (n_pairs, D), and a list of
        tensors of up to `batch_size` pairs each, (n, 2): probability of not being and of being neighbours.

    Raises
    ------
    InputError
        If an argument is not one of its choices, the checkpoint comes without vocabulary and scale, and as for
        `SpatialFormer.embed` and `SpatialFormer.embed_pairs`.

    Notes
    -----
    Other than in the published code: tissue and condition have no silent default; the assay is honoured, in pairs too;
    the attention is the one of the training, not an option of inference; genes of equal rank come in one order on every
    machine; counts are checked; `reverse_check` averages instead of picking one order at random; gene pairs have their
    own names, not those five ranks further down.

    Examples
    --------
    Code of the published README, with the import changed::

        import spaf_model as sp
        adata = sp.tl.embed_data(
            adata=adata, tissue="Lung", condition="Disease", assay="Xenium", method="cls",
            model_ckp_path="./ckp_single_13tissues_71.ckpt", batch_size=16, mode="single", num_workers=32,
        )
    """
    at_position = _by_position(positional)
    method = str(_once("method", method, at_position) or "cls").lower()
    path = _once("model_ckp_path", model_ckp_path, at_position)
    n_cells = _once("batch_size", batch_size, at_position)
    assay = _once("assay", assay, at_position)
    n_cells = 16 if n_cells is None else n_cells
    if method not in _METHODS:
        raise InputError(f"method must be one of {', '.join(_METHODS)}, not {method!r}.")
    if mode not in get_args(Mode):
        raise InputError(f"mode must be one of {', '.join(get_args(Mode))}, not {mode!r}.")
    if not isinstance(n_cells, (int, np.integer)) or n_cells < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, not {n_cells!r}.")
    if only_loader:
        raise InputError("There is no loader to return: leave only_loader out, or use TokenBatch.from_cells.")
    if path is None:
        raise InputError("Give model_ckp_path, a model directory or a published .ckpt.")
    table = table_of(adata, table_key)
    if mode == "single":
        pairs = None
    elif left_cell is None or right_cell is None:
        raise InputError("mode='pair' needs left_cell and right_cell.")
    else:
        pairs = pair_positions(table, left_cell, right_cell)
    context = {"tissue": tissue, "condition": condition, **_species_and_assay(table, species, assay)}
    model = _load(
        Path(path),
        vocabulary=vocabulary if vocabulary is not None else token_path,
        scale=scale if scale is not None else gene_median_path,
        wheel=wheel,
        attention=attention,
        use_flash_attn=use_flash_attn,
    ).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if max_len is not None:
        model.config = dataclasses.replace(model.config, max_genes=max_len)
    reading: dict[str, Any] = {**context, "layer": layer}
    budget = _token_budget(model, table, ReadingOptions(**reading), int(n_cells), pairs)
    if pairs is not None:
        result = model.embed_pairs(
            table, *pairs, both_orders=bool(reverse_check), token_budget=budget, progress=True, **reading
        )
        both = torch.from_numpy(np.stack([1 - result.probabilities, result.probabilities], axis=1))
        return result.embeddings, list(both.split(int(n_cells))) if len(both) else []
    model.embed(table, method=method, token_budget=budget, progress=True, **reading)
    if reveal_name:
        model.predict_colocalization(table, threshold, token_budget=budget, progress=True, **reading)
        table.obs["Gene_Pairs"] = _named_pairs(table)
    return table


def _by_position(values: Sequence[Any]) -> dict[str, Any]:
    """Name what was given by position after the condition."""
    names: tuple[str, ...] = _POSITIONAL
    if values and str(values[0]).lower() not in _METHODS:
        names = _POSITIONAL_WITH_ASSAY
    if len(values) > len(names):
        raise InputError(f"At most {', '.join(names)} may follow the condition by position; name the rest.")
    return dict(zip(names, values, strict=False))


def _once(name: str, by_name: Any, at_position: dict[str, Any]) -> Any:
    if name not in at_position:
        return by_name
    if by_name is not None:
        raise InputError(f"{name} is given twice, by position and by name.")
    return at_position[name]


def _species_and_assay(adata: anndata.AnnData, species: str | None, assay: str | None) -> dict[str, str | None]:
    context = {"species": species, "assay": assay}
    for kind, published in _PUBLISHED_CONTEXT.items():
        if context[kind] is None and kind not in adata.obs.columns:
            logger.warning("No %s is given: %r is taken, as the published code does.", kind, published)
            context[kind] = published
    return context


def _load(
    path: Path,
    *,
    vocabulary: str | Path | None,
    scale: str | Path | None,
    wheel: str | Path | None,
    attention: AttentionVariant | None,
    use_flash_attn: bool | None,
) -> SpatialFormer:
    for_checkpoints = {"vocabulary": vocabulary, "scale": scale, "wheel": wheel, "attention": attention}
    if path.is_dir():
        surplus = [name for name, value in for_checkpoints.items() if value is not None]
        if surplus:
            raise InputError(f"{surplus[0]} belongs to a published .ckpt, but {path} is a folder.")
        return SpatialFormer.from_pretrained(path)
    source = read_checkpoint(path)
    recorded = source.hyper_parameters.get(FLASH_KEY)
    if attention is None and use_flash_attn is not None:
        if not isinstance(recorded, bool):
            attention = "flash" if use_flash_attn else "explicit"
        elif recorded != use_flash_attn:
            logger.warning(
                "use_flash_attn=%s is not what %s was trained with; it is computed as trained.",
                use_flash_attn,
                source.name,
            )
    if wheel is None and (vocabulary is None or scale is None):
        wheels = sorted(path.parent.glob("spatialformer-*.whl"))
        tokens, medians = path.parent / TOKEN_FILES[source.version], path.parent / MEDIANS_FILE
        if vocabulary is None and scale is None and len(wheels) == 1:
            wheel = wheels[0]
        elif (vocabulary is not None or tokens.is_file()) and (scale is not None or medians.is_file()):
            vocabulary, scale = vocabulary or tokens, scale or medians
        else:
            raise InputError(
                f"{path} needs its vocabulary and scale: give vocabulary= ({tokens.name}) and scale= ({medians.name}), "
                "or wheel=, or put these files beside it."
            )
    return convert_published(path, vocabulary=vocabulary, scale=scale, wheel=wheel, attention=attention)


def _token_budget(
    model: SpatialFormer,
    adata: anndata.AnnData,
    options: ReadingOptions,
    batch_size: int,
    pairs: tuple[np.ndarray, np.ndarray] | None,
) -> int:
    """Return the tokens of `batch_size` of the longest sequences, or what suits the device where that is less."""
    n_segments, cells, segments = 1, None, np.arange(adata.n_obs)
    if pairs is not None:
        n_segments = 2
        cells, segments = np.unique(np.concatenate(pairs), return_inverse=True)
    source = CellSource(adata, model.vocabulary, options, cells=cells)
    n_genes = np.concatenate([np.zeros(0, dtype=np.int64), *(counts.n_genes for _, counts in source.chunks())])
    if model.config.max_genes is not None:
        n_genes = np.minimum(n_genes, model.config.max_genes)
    lengths = sequence_lengths(*n_genes[segments].reshape(n_segments, -1))
    suitable = model.network.token_budget(model.network.device)
    return min(suitable, batch_size * int(lengths.max(initial=1)))


def _named_pairs(adata: anndata.AnnData) -> pd.Series:
    """Return the gene pairs of each cell as lists, by the names that the published code reads."""
    names = adata.var.get("gene_name", adata.var_names)
    name_of = dict(zip(adata.var_names, map(str, names), strict=True))
    pairs = [[name_of[gene] for gene in pair] for pair in adata.uns[COLOCALIZATION_KEY]["pairs"].to_numpy().tolist()]
    matrix = adata.obsm[COLOCALIZATION_KEY]
    lists = [[pairs[pair] for pair in of_cell] for of_cell in np.split(matrix.indices, matrix.indptr[1:-1])]
    return pd.Series(lists, index=adata.obs_names, dtype=object)

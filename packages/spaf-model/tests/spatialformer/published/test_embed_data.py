import logging
import shutil
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import spaf_model
from spaf_model import InputError, SpatialFormer, convert_published
from spaf_model.spatialformer.layers import TokenEmbedding

CONTEXT = {"tissue": "Lung", "condition": "Disease"}
PUBLISHED = CONTEXT | {"species": "Human", "assay": "Xenium"}


@pytest.fixture
def cells() -> anndata.AnnData:
    """20 cells with gene names where the published code wants them, and no context in obs."""
    counts = np.random.default_rng(3).poisson(0.7, size=(20, 30))
    counts[counts.sum(axis=1) == 0, 0] = 1
    cells = anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)))
    cells.obs_names = [f"aaaa-{cell}" for cell in range(20)]
    cells.var_names = [f"ENSX{gene}" for gene in range(30)]
    cells.var["gene_name"] = [f"GENE{gene}" for gene in range(30)]
    return cells


@pytest.fixture
def checkpoint(published: Any) -> Path:
    """A checkpoint beside its vocabulary and medians, trained with the explicit attention."""
    published.wheel.unlink()
    published.save(hyper_parameters={"use_flash_attn": False})
    return Path(published.checkpoint)


@pytest.fixture
def model(published: Any, checkpoint: Path) -> SpatialFormer:
    return convert_published(checkpoint, vocabulary=published.vocabulary, scale=published.scale)


@pytest.fixture
def expected(model: SpatialFormer, cells: anndata.AnnData) -> np.ndarray:
    copy = cells.copy()
    model.embed(copy, **PUBLISHED)  # type: ignore[arg-type]
    return copy.obsm["X_SpaF"]


def test_call_of_the_published_readme(cells: anndata.AnnData, checkpoint: Path, expected: np.ndarray) -> None:
    sp = spaf_model
    adata, tissue, condition, assay, method = cells, "Lung", "Disease", "Xenium", "cls"
    model_ckp_path, use_flash_attn, batch_size = str(checkpoint), False, 16
    embed_adata = sp.tl.embed_data(
        adata=adata,
        tissue=tissue,
        condition=condition,
        assay=assay,
        method=method,
        model_ckp_path=model_ckp_path,
        batch_size=batch_size,
        mode="single",
        use_flash_attn=use_flash_attn,
        num_workers=32,
    )
    assert embed_adata is adata
    np.testing.assert_allclose(embed_adata.obsm["X_SpaF"], expected, atol=1e-5)


def test_pairs_of_the_published_readme(cells: anndata.AnnData, checkpoint: Path, model: SpatialFormer) -> None:
    left, right = [f"aaaa-{cell}" for cell in range(9)], [f"aaaa-{cell}" for cell in range(9, 18)]
    options = {**PUBLISHED, "model_ckp_path": checkpoint, "batch_size": 4, "mode": "pair", "method": "cls"}
    embeddings, probabilities = spaf_model.tl.embed_data(
        cells, left_cell=left, right_cell=right, num_workers=16, **options
    )
    once = model.embed_pairs(cells, left, right, both_orders=False, **PUBLISHED)  # type: ignore[arg-type]
    np.testing.assert_allclose(embeddings, once.embeddings, atol=1e-5)
    assert [tuple(part.shape) for part in probabilities] == [(4, 2), (4, 2), (1, 2)]
    table = torch.cat(probabilities).numpy()
    np.testing.assert_allclose(table[:, 1], once.probabilities, atol=1e-5)
    np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=1e-6)
    # Both orders are averaged, so that nothing is drawn and swapping changes nothing.
    checked = [
        torch.cat(
            spaf_model.tl.embed_data(cells, left_cell=one, right_cell=other, reverse_check=True, **options)[1]
        ).numpy()
        for one, other in ((left, right), (right, left), (left, right))
    ]
    np.testing.assert_array_equal(checked[0], checked[1])
    np.testing.assert_array_equal(checked[0], checked[2])
    both = model.embed_pairs(cells, left, right, **PUBLISHED)  # type: ignore[arg-type]
    np.testing.assert_allclose(checked[0][:, 1], both.probabilities, atol=1e-5)


@pytest.mark.parametrize("order", ["of 0.1.8", "before"])
def test_arguments_by_position(order: str, cells: anndata.AnnData, checkpoint: Path, expected: np.ndarray) -> None:
    assay = ("Xenium",) if order == "of 0.1.8" else ()
    result = spaf_model.tl.embed_data(
        cells, "Lung", "Disease", *assay, "CLS", checkpoint, 2, mode="single", threshold=0.7
    )
    np.testing.assert_allclose(result.obsm["X_SpaF"], expected, atol=1e-5)
    with pytest.raises(InputError, match="method is given twice"):
        spaf_model.tl.embed_data(cells, "Lung", "Disease", *assay, "cls", method="cls", model_ckp_path=checkpoint)
    with pytest.raises(InputError, match="batch_size may follow the condition by position; name the rest"):
        spaf_model.tl.embed_data(cells, "Lung", "Disease", *assay, "cls", checkpoint, 2, "single")


def test_every_default_works(cells: anndata.AnnData, checkpoint: Path, expected: np.ndarray) -> None:
    """Upper case and no workers, the defaults of the published call, crash there."""
    result = spaf_model.tl.embed_data(cells, **CONTEXT, method="CLS", model_ckp_path=checkpoint, num_workers=0)
    np.testing.assert_allclose(result.obsm["X_SpaF"], expected, atol=1e-5)
    genes = spaf_model.tl.embed_data(cells.copy(), **CONTEXT, method="Gene", model_ckp_path=checkpoint)
    assert np.abs(genes.obsm["X_SpaF"] - expected).max() > 1e-2


def test_workers_and_batch_size_change_nothing(cells: anndata.AnnData, checkpoint: Path, expected: np.ndarray) -> None:
    for n_workers, batch_size in ((0, 1), (1, 3), (8, 1000)):
        result = spaf_model.tl.embed_data(
            cells.copy(), **CONTEXT, model_ckp_path=checkpoint, num_workers=n_workers, batch_size=batch_size
        )
        np.testing.assert_allclose(result.obsm["X_SpaF"], expected, atol=1e-5)


def test_lower_batch_size_makes_smaller_batches(
    cells: anndata.AnnData, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    forward = TokenEmbedding.forward

    def watched(
        self: TokenEmbedding, ids: torch.Tensor, types: torch.Tensor, values: torch.Tensor | None
    ) -> torch.Tensor:
        sizes[-1].append(ids.numel())
        return forward(self, ids, types, values)

    monkeypatch.setattr(TokenEmbedding, "forward", watched)
    for batch_size in (1, 4, 16):
        sizes.append([])
        spaf_model.tl.embed_data(cells, **CONTEXT, model_ckp_path=checkpoint, batch_size=batch_size)
    longest = int((cells.X > 0).sum(axis=1).max()) + 6
    for batch_size, found in zip((1, 4, 16), sizes, strict=True):
        assert max(found) <= batch_size * longest
    assert max(sizes[0]) < max(sizes[1]) < max(sizes[2])
    sizes.append([])
    sides = {"left_cell": [0, 1, 2, 3], "right_cell": [4, 5, 6, 7]}
    spaf_model.tl.embed_data(cells, **CONTEXT, model_ckp_path=checkpoint, batch_size=1, mode="pair", **sides)
    n_genes = np.asarray((cells.X > 0).sum(axis=1)).ravel()
    assert max(sizes[-1]) == (n_genes[:4] + n_genes[4:8]).max() + 11


def test_assay_is_honoured_and_never_silent(
    cells: anndata.AnnData, checkpoint: Path, expected: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**CONTEXT, "model_ckp_path": checkpoint}
    with caplog.at_level(logging.WARNING):
        spaf_model.tl.embed_data(cells, **options)
    assert "No assay is given: 'Xenium' is taken" in caplog.text
    assert "No species is given: 'Human' is taken" in caplog.text
    np.testing.assert_allclose(cells.obsm["X_SpaF"], expected, atol=1e-5)
    caplog.clear()
    merfish = spaf_model.tl.embed_data(cells.copy(), **options, assay="Merfish", species="Human").obsm["X_SpaF"]
    assert not caplog.records
    assert np.abs(merfish - expected).max() > 1e-3
    cells.obs["assay"] = "Merfish"
    np.testing.assert_array_equal(spaf_model.tl.embed_data(cells, **options, species="Human").obsm["X_SpaF"], merfish)
    with pytest.raises(InputError, match="tissue of the cells is not known"):
        spaf_model.tl.embed_data(cells, condition="Disease", model_ckp_path=checkpoint)


def test_gene_pairs_have_their_own_names(cells: anndata.AnnData, checkpoint: Path, model: SpatialFormer) -> None:
    result = spaf_model.tl.embed_data(
        cells, **PUBLISHED, model_ckp_path=checkpoint, reveal_name=True, threshold=0.7, max_len=6
    )
    counts = cells.to_df().set_axis(cells.var["gene_name"], axis=1)
    n_pairs = 0
    for cell, pairs in result.obs["Gene_Pairs"].items():
        for pair in pairs:
            assert (counts.loc[cell, pair] > 0).all()
        n_pairs += len(pairs)
    assert n_pairs == result.obsm["colocalization_pred"].nnz > 20
    assert result.uns["colocalization_pred"]["threshold"] == 0.7
    # Six genes a cell have at most 15 pairs.
    assert max(map(len, result.obs["Gene_Pairs"])) <= 15


def test_model_directory_and_wheel_give_the_same(
    published: Any, cells: anndata.AnnData, model: SpatialFormer, expected: np.ndarray, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    files = {"vocabulary": published.vocabulary, "scale": published.scale}
    old_names = {"token_path": published.vocabulary, "gene_median_path": published.scale}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = shutil.copy(published.checkpoint, elsewhere / "last.ckpt")
    for path, options in ((tmp_path / "model", {}), (moved, files), (moved, old_names)):
        result = spaf_model.tl.embed_data(cells.copy(), **CONTEXT, model_ckp_path=path, **options)
        np.testing.assert_allclose(result.obsm["X_SpaF"], expected, atol=1e-5)
    with pytest.raises(InputError, match=r"last\.ckpt needs its vocabulary .*tokenv5\.json.*gene_median\.pkl"):
        spaf_model.tl.embed_data(cells, **CONTEXT, model_ckp_path=moved)
    with pytest.raises(InputError, match="scale belongs to a published .ckpt, but .* is a folder"):
        spaf_model.tl.embed_data(cells, **CONTEXT, model_ckp_path=tmp_path / "model", scale=published.scale)


def test_wheel_beside_the_checkpoint_or_given(published: Any, cells: anndata.AnnData) -> None:
    published.save(hyper_parameters={"use_flash_attn": True})
    published.vocabulary.unlink()
    beside = spaf_model.tl.embed_data(cells.copy(), **CONTEXT, model_ckp_path=published.checkpoint)
    given = spaf_model.tl.embed_data(
        cells.copy(), **CONTEXT, model_ckp_path=published.checkpoint, wheel=published.wheel
    )
    np.testing.assert_array_equal(beside.obsm["X_SpaF"], given.obsm["X_SpaF"])


def test_attention_is_that_of_the_training(
    published: Any, checkpoint: Path, cells: anndata.AnnData, expected: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        asked = spaf_model.tl.embed_data(cells.copy(), **PUBLISHED, model_ckp_path=checkpoint, use_flash_attn=True)
    assert "use_flash_attn=True is not what last.ckpt was trained with" in caplog.text
    np.testing.assert_allclose(asked.obsm["X_SpaF"], expected, atol=1e-5)
    flash = spaf_model.tl.embed_data(cells.copy(), **PUBLISHED, model_ckp_path=checkpoint, attention="flash")
    assert np.abs(flash.obsm["X_SpaF"] - expected).max() > 1e-2
    published.save()  # a checkpoint that does not say
    told = spaf_model.tl.embed_data(cells.copy(), **PUBLISHED, model_ckp_path=checkpoint, use_flash_attn=True)
    np.testing.assert_allclose(told.obsm["X_SpaF"], flash.obsm["X_SpaF"], atol=1e-5)
    with pytest.raises(InputError, match="does not record which attention"):
        spaf_model.tl.embed_data(cells, **PUBLISHED, model_ckp_path=checkpoint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mean"}, "method must be one of cls, gene, not 'mean'"),
        ({"mode": "triple"}, "mode must be one of single, pair, not 'triple'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"mode": "pair"}, "mode='pair' needs left_cell and right_cell"),
        ({"mode": "pair", "left_cell": ["aaaa-1"], "right_cell": ["b"]}, "right names cells that are not in"),
        ({"mode": "pair", "left_cell": ["aaaa-1"], "right_cell": []}, "equal lengths, not 1 and 0"),
        ({"only_loader": True}, "There is no loader to return"),
        ({"model_ckp_path": None}, "Give model_ckp_path"),
        ({"tissue": "Spleen"}, "knows no tissue 'Spleen'; it knows: Lung, Bone"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str, cells: anndata.AnnData, checkpoint: Path) -> None:
    with pytest.raises(InputError, match=message):
        spaf_model.tl.embed_data(cells, **{**PUBLISHED, "model_ckp_path": checkpoint, **options})
    assert "X_SpaF" not in cells.obsm

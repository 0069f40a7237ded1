"""Conversion, against numbers that the published package computed on the same weights."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spaf_model import InputError, SpatialFormer, TokenBatch, convert_published

# spatialformer 0.1.8 on the weights of conftest.py: one single cell and one pair of cells in a padded batch. Flash
# attention through a stand-in for its kernel; v1 with the dense projector of that generation on the last layer.
FIRST = [1, 26, 11, 3, 6, 27, 30, 41, 35, 59, 40]
SECOND = [25, 8, 4, 7, 50, 28, 40]
HIDDEN = {
    "explicit": {
        "cls": [-1.1478358507, -0.3196956515, 1.6327589750, -0.2987511456],
        "gene": [-0.5674814582, 0.1011859700, -0.0525290370, -1.2626056671],
        "neighbours": 0.3312487602,
        "gene logit": 0.4461867213,
    },
    "flash": {
        "cls": [-1.1845878363, -0.2367436141, 1.6902748346, -1.5033472776],
        "gene": [-0.6574242711, 0.2564248741, 0.5276563168, -1.6004275084],
        "neighbours": 0.5437548757,
        "gene logit": 0.5516362786,
    },
}
COLOCALIZATION = {  # between positions 4 and 5 of the second cell of the pair
    ("v1", "explicit"): -0.4626657367,
    ("v1", "flash"): 0.4337129891,
    ("v2", "explicit"): 2.6162753105,
    ("v2", "flash"): 4.1233429909,
}


def convert(published: Any, **options: Any) -> SpatialFormer:
    files = {"vocabulary": published.vocabulary, "scale": published.scale} if "wheel" not in options else {}
    return convert_published(published.checkpoint, **files, **options)


@torch.no_grad()
@pytest.mark.parametrize(("version", "variant"), COLOCALIZATION)
def test_computes_what_the_published_package_computes(published: Any, version: str, variant: Any) -> None:
    published.save(version)
    model = convert(published, attention=variant)
    network = model.network
    n_first, n_pair = len(FIRST), len(FIRST) + len(SECOND)
    batch = TokenBatch(
        ids=torch.tensor([FIRST + [0] * len(SECOND), FIRST + SECOND]),
        types=torch.tensor([[1] * n_first + [0] * len(SECOND), [1] * n_first + [2] * len(SECOND)]),
        lengths=torch.tensor([[n_first, 0], [n_first, len(SECOND)]]),
    )
    hidden = network.encode(batch)
    expected = HIDDEN[variant]
    close = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(hidden[0, 0, :4], expected["cls"], **close)
    np.testing.assert_allclose(hidden[0, 5:n_first].mean(0)[:4], expected["gene"], **close)
    np.testing.assert_allclose(network.masked_gene_logits(hidden)[0, 7, 45], expected["gene logit"], **close)
    np.testing.assert_allclose(network.pair_logits(hidden)[1].softmax(0)[1], expected["neighbours"], **close)
    logits = network.colocalization_logits(hidden, batch)[1, n_first:n_pair, n_first:n_pair]
    np.testing.assert_allclose(logits[4, 5], COLOCALIZATION[version, variant], **close)


@torch.no_grad()
def test_model_directory_holds_the_same_model(published: Any, tmp_path: Path) -> None:
    published.save()
    model = convert(published, attention="explicit")
    assert not model.network.training
    model.save_pretrained(tmp_path / "model")
    loaded = SpatialFormer.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    assert loaded.vocabulary == model.vocabulary
    state = loaded.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.network.state_dict().items())
    assert loaded.config.attention_layout == "[q|k|v][head][dim]"
    assert loaded.config.attention_scale == 32**-0.5
    assert loaded.config.norm == "post"


def test_half_precision_checkpoints_become_single(published: Any) -> None:
    published.save(change=lambda tensors: tensors.update({k: v.bfloat16() for k, v in tensors.items() if v.ndim == 2}))
    model = convert(published, attention="flash")
    assert {tensor.dtype for tensor in model.network.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(("flash", "scale"), [(True, 8**-0.5), (False, 32**-0.5)])
def test_attention_is_told_by_the_checkpoint(published: Any, flash: bool, scale: float) -> None:
    published.save(hyper_parameters={"use_flash_attn": flash})
    model = convert(published)
    assert model.config.attention_scale == scale
    assert "hyper-parameter use_flash_attn" in model.card


@pytest.mark.parametrize("recorded", [{}, {"use_flash_attn": None}, {"outer_config": {"use_flash_attn": True}}])
def test_attention_is_never_guessed(published: Any, recorded: dict[str, Any]) -> None:
    published.save(hyper_parameters=recorded)
    with pytest.raises(InputError, match=r"does not record .* say attention=explicit or attention=flash"):
        convert(published)


def test_attention_as_asked_goes_before_the_record(published: Any, caplog: pytest.LogCaptureFixture) -> None:
    published.save(hyper_parameters={"use_flash_attn": True})
    with caplog.at_level(logging.WARNING):
        model = convert(published, attention="explicit")
    assert "records flash attention; it is converted as explicit" in caplog.text
    assert "although the checkpoint records flash" in model.card
    assert model.config.attention_scale == 32**-0.5


def test_card_says_where_the_model_is_from(published: Any) -> None:
    published.save("v1")
    card = convert(published, attention="explicit").card
    assert "SpatialFormer v1" in card
    for file in (published.checkpoint, published.vocabulary, published.scale):
        assert file.name in card
        assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    for text in ("196,000", "explicit (given at the conversion", "MIT", "`encoder.emb_proj.*`", "`log_sigma_*`"):
        assert text in card
    assert str(published.folder) not in card


def test_problems_of_all_tensors_are_in_one_sentence(published: Any) -> None:
    def damage(tensors: dict[str, Any]) -> None:
        del tensors["pair_head.weight"]
        tensors["lora_A.weight"] = torch.zeros(2)
        tensors["encoder.layers.1.conv_blocks.0.conv.conv.conv.weight"] = torch.zeros(32, 1, 15)

    published.save(change=damage)
    with pytest.raises(InputError) as error:
        convert(published, attention="flash")
    message = str(error.value)
    assert "last.ckpt" in message
    assert "missing: pair_head.weight" in message
    assert "unexpected: lora_A.weight" in message
    assert "encoder.layers.1.conv_blocks.0.conv.conv.conv.weight (32, 1, 15) instead of (32, 1, 17)" in message


def test_checkpoint_that_used_the_gene_graph_is_refused(published: Any) -> None:
    published.save(change=lambda tensors: tensors.update({"encoder.bpp_weight": torch.ones(500)}))
    with pytest.raises(InputError, match="gene graph added to its attention"):
        convert(published, attention="explicit")


def test_generation_must_be_clear(published: Any) -> None:
    for change in (
        {"adjprojector.fc.weight": torch.zeros(1, 64)},
        {"adjprojector.project_i.weight": None},
    ):

        def apply(tensors: dict[str, Any], change: dict[str, Any] = change) -> None:
            tensors.update(change)
            for name in [name for name, tensor in tensors.items() if tensor is None]:
                del tensors[name]

        published.save(change=apply)
        with pytest.raises(InputError, match="must have exactly one"):
            convert(published, attention="flash")


def test_heads_are_counted_where_they_are_not_recorded(published: Any) -> None:
    published.save()
    content = torch.load(published.checkpoint, weights_only=True)
    del content["hyper_parameters"]["nheads"]
    torch.save(content, published.checkpoint)
    assert convert(published, attention="flash").config.n_heads == 4


def test_sizes_that_cannot_be(published: Any) -> None:
    published.save(hyper_parameters={"nheads": 5})
    with pytest.raises(InputError, match=r"last\.ckpt records sizes that cannot be: n_heads must divide width"):
        convert(published, attention="flash")


def test_without_the_table_of_gene_vectors(published: Any) -> None:
    published.save(
        hyper_parameters={"outer_config": {"spatial_embedding": False}},
        change=lambda tensors: tensors.pop("spatialembeds.emb.weight"),
    )
    assert convert(published, attention="flash").network.embedding.gene_spatial is None


def test_vocabulary_of_another_generation_does_not_fit(published: Any) -> None:
    published.save("v1")
    with pytest.raises(InputError, match=r"misshapen: embeddings\.weight \(60, 32\) instead of \(50, 32\)"):
        convert(published, wheel=published.wheel, attention="flash")


def test_wheel_gives_what_the_files_give(published: Any) -> None:
    published.save("v2")
    from_wheel = convert(published, wheel=published.wheel, attention="flash")
    assert from_wheel.vocabulary == convert(published, attention="flash").vocabulary
    assert published.wheel.name in from_wheel.card


def test_arguments_that_do_not_go_together(published: Any) -> None:
    published.save()
    checkpoint = published.checkpoint
    with pytest.raises(InputError, match="both vocabulary and scale, or the published wheel"):
        convert_published(checkpoint, vocabulary=published.vocabulary, attention="flash")
    with pytest.raises(InputError, match="not both"):
        convert_published(checkpoint, scale=published.scale, wheel=published.wheel, attention="flash")
    with pytest.raises(InputError, match="one of explicit, flash, not 'sdpa'"):
        convert(published, attention="sdpa")

import dataclasses

import pytest

from spaf_model import InputError, SpatialFormerConfig, SpatialFormerNetwork


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("width", 0),
        ("n_layers", 1.5),
        ("n_heads", 7),
        ("mlp_expansion", 3),
        ("conv_kernel", 16),
        ("norm", "sandwich"),
        ("attention_scale", -1.0),
        ("attention_layout", "[head][q|k|v][dim]"),
        ("colocalization_head", "cubic"),
        ("embedding_dropout", 1.0),
        ("drop_path", "0.1"),
        ("batch_norm_momentum", 0.0),
        ("batch_norm_eps", 0),
        ("max_genes", 0),
        ("n_tokens", True),
        ("gene_spatial_embedding", "yes"),
    ],
)
def test_bad_value_names_its_option(option: str, value: object) -> None:
    with pytest.raises(InputError, match=option):
        SpatialFormerConfig(**{option: value})


def test_round_trip_through_plain_values() -> None:
    config = SpatialFormerConfig(width=96, n_heads=3, n_layers=2)
    assert SpatialFormerConfig.from_dict(config.as_dict()) == config


def test_unknown_option_is_named() -> None:
    with pytest.raises(InputError, match="widht.*the options are.*width"):
        SpatialFormerConfig.from_dict({"widht": 64})


def test_attention_scale_is_stored_as_a_number() -> None:
    assert SpatialFormerConfig(width=64, n_heads=4).attention_scale == 0.25


def test_published_v2_has_the_published_size() -> None:
    config = SpatialFormerConfig.published("v2")
    assert (config.width, config.n_layers, config.n_heads, config.head_dim) == (512, 10, 64, 8)
    assert (config.n_tokens, config.conv_kernel, config.norm) == (6065, 17, "post")
    n_parameters = sum(p.numel() for p in SpatialFormerNetwork(dataclasses.replace(config, n_layers=1)).parameters())
    # By hand: a convolution block of 2,377,216 and an attention block of 2,630,144 parameters; two gene tables, three
    # types, the norm, and the heads.
    tables = 2 * 6065 * 512 + 3 * 512 + 2 * 512
    heads = 6065 * 512 + 6065 + 2 * 512 + 2 * 512 * 128
    assert n_parameters == 2_377_216 + 2_630_144 + tables + heads


def test_published_v1_has_the_additive_head() -> None:
    config = SpatialFormerConfig.published("v1")
    assert (config.n_tokens, config.colocalization_head) == (1950, "additive")


def test_unknown_published_version() -> None:
    with pytest.raises(InputError, match="v1, v2"):
        SpatialFormerConfig.published("v3")  # type: ignore[arg-type]

import pytest

from spaf_model import InputError
from spaf_model.scgpt_spatial import ScGPTSpatialConfig


def test_values_survive_a_dictionary() -> None:
    for config in (ScGPTSpatialConfig(), ScGPTSpatialConfig.published()):
        assert ScGPTSpatialConfig.from_dict(config.as_dict()) == config
    assert ScGPTSpatialConfig().mlp_width == 512
    assert ScGPTSpatialConfig(width=64, n_heads=4).head_dim == 16
    assert ScGPTSpatialConfig.published().decoder_width == 1024
    assert ScGPTSpatialConfig(n_technologies=0).decoder_width == 512


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, not 0"),
        ({"n_heads": 7}, "n_heads must divide width: 7 does not divide 512"),
        ({"n_bins": 2}, "n_bins must be a whole number of at least 3"),
        ({"n_experts": 2, "n_active": 3}, "n_active must be at most n_experts, 2, not 3"),
        ({"norm": "none"}, "norm must be one of pre, post, not 'none'"),
        ({"value_style": "log"}, "value_style must be one of bins, rates, not 'log'"),
        ({"neighbour_weights": "flat"}, "neighbour_weights must be one of gaussian, uniform"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"dropout": "some"}, "dropout must be a number, not 'some'"),
        ({"balance_rate": -1.0}, "balance_rate must be at least 0"),
        ({"niche_gate": 2.0}, "niche_gate must be from 0 to 1"),
        ({"max_length": 1}, "max_length must be a whole number of at least 2"),
        ({"asked_projection": 1}, "asked_projection must be true or false"),
        ({"heads": 3}, r"Unknown option\(s\) heads; the options are: n_tokens"),
    ],
)
def test_what_cannot_be_is_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ScGPTSpatialConfig.from_dict(options)

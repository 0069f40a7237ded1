import pytest

from spaf_model import InputError, NetworkConfig, TissueConfig


@pytest.mark.parametrize(
    ("n_cells", "widths", "steps"), [(1_500, (256, 128), 400), (7_999, (256, 128), 400), (8_000, (512, 256), 800)]
)
def test_the_network_is_chosen_by_size(n_cells, widths, steps):
    config = NetworkConfig.by_size(n_cells)
    assert (config.widths, config.steps) == (widths, steps)


def test_few_cells_have_no_network():
    assert NetworkConfig.by_size(1_499) is None


def test_survives_json():
    config = TissueConfig(radius=12.0, network=NetworkConfig(widths=(64,)), scales={"closed": 2.0})
    assert TissueConfig.from_dict(config.as_dict()) == config
    assert TissueConfig.from_dict(TissueConfig().as_dict()) == TissueConfig()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"preset": "tissues"}, "preset must be one of tissue, neighbours"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"radius": 0.0}, "radius must be above 0"),
        ({"radius": float("nan")}, "radius must be above 0"),
        ({"n_place": 0}, "n_place must be at least 1"),
        ({"ridge": -1.0}, "ridge must be at least 0"),
    ],
)
def test_refuses_options(options, sentence):
    with pytest.raises(InputError, match=sentence):
        TissueConfig(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"widths": ()}, "widths"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"panel": (0.0, 1.0)}, "panel"),
        ({"local": 1.0}, "local"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_refuses_options_of_the_network(options, sentence):
    with pytest.raises(InputError, match=sentence):
        NetworkConfig(**options)


def test_an_unknown_option_of_a_file_is_named():
    with pytest.raises(InputError, match="wings"):
        TissueConfig.from_dict({"wings": 2})

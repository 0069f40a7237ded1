"""Options that cannot be, and names that can be none."""

import numpy as np
import pytest

from spaf_data import BuildOptions, InputError, SlideSource


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 0.0}, "radius must be above 0 um"),
        ({"radius": np.nan}, "radius must be a finite number, not nan"),
        ({"min_qv": np.nan}, "min_qv must be a finite number, not nan"),
        ({"gap": np.nan}, "gap must be a finite number"),
        ({"colocalization_radius": np.inf}, "colocalization_radius must be a finite number"),
        ({"gap": 30.0}, r"gap \(30 um\) must be wider than radius"),
        ({"validation_fraction": 1.0}, "between 0 and 1"),
        ({"block_cells": 0}, "block_cells must be at least 1"),
    ],
)
def test_options_that_cannot_be(change, message):
    with pytest.raises(InputError, match=message):
        BuildOptions(**change)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a\\b", "y" * 300, "a\udce9"])
def test_slide_names_become_file_names(bundle, name):
    with pytest.raises(InputError, match="becomes a file name"):
        SlideSource(path=bundle, slide=name)

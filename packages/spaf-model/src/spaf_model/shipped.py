"""Models that come with the package."""

from __future__ import annotations

import logging
import re
from importlib import resources
from pathlib import Path

from spaf_model._files import read_json_object
from spaf_model.errors import InputError
from spaf_model.fetching import fetch_model
from spaf_model.model_directory import CONFIG_FILE, FIRST_FAMILY, FORMAT_VERSION
from spaf_model.published_models import name_and_revision

STARTER = "starter"  # used where no model is named
SPATIALFORMER_STARTER = "starter-1"  # .. where a SpatialFormer is asked for

# Cells with a place from which on a model of the slide itself is the better choice; see `benchmarks/starter2.md`.
OWN_FROM = 5_000

_PLAIN_NAME = re.compile(r"[\w-]+")  # no path, and no NAME@REVISION

logger = logging.getLogger(__name__)

_FOLDER = Path(str(resources.files("spaf_model"))) / "models"


def shipped_models(family: str | None = None) -> list[str]:
    """Return the names of the models that come with the package, for `load_model`; of one family where it is named."""
    names = sorted(file.parent.name for file in _FOLDER.glob(f"*/{CONFIG_FILE}"))
    return [name for name in names if family in (None, shipped_family(name))]


def shipped_family(model: str) -> str:
    """Return the family of a model that comes with the package."""
    content = read_json_object(_FOLDER / model / CONFIG_FILE, newest=FORMAT_VERSION)
    return str(content.get("family", FIRST_FAMILY))


def model_path(model: str | Path, base_url: str | None = None) -> Path:
    """Return the folder of a model that is named or given by its path.

    A name of a shipped model goes before a folder of that name, so that it means the same everywhere; such a folder is
    given as ``./starter`` or as a `Path`. ``NAME@REVISION`` is fetched from `base_url`, or is one that was fetched
    (`fetch_model`), unless there is a folder of that name.
    """
    if base_url is None and isinstance(model, str) and model in shipped_models():
        return _FOLDER / model
    if base_url is not None or (name_and_revision(model) is not None and not Path(model).exists()):
        return fetch_model(str(model), base_url)
    return Path(model)


def model_to_read(model: str | Path, base_url: str | None = None) -> Path:
    """Return `model_path` of a model that is about to be read.

    Raises
    ------
    InputError
        If a name is given that is none of a model, and no folder has it.
    """
    path = model_path(model, base_url)
    if isinstance(model, str) and _PLAIN_NAME.fullmatch(model) and not path.exists():
        raise InputError(
            f"{model} is not a model directory, and no model of that name comes with spaf-model; these do: "
            f"{', '.join(shipped_models())}."
        )
    return path


def advice_of_own(model: str, n_placed: int) -> None:
    """Recommend a model of the slide itself where one that came with the package was used and the slide is enough.

    Parameters
    ----------
    model
        What was used, by its source.
    n_placed
        Cells with a place, of the largest slide.
    """
    if model in shipped_models() and n_placed >= OWN_FROM:
        logger.info(
            "A slide has %d cells with places: a model fitted on it (TissueModel.fit, or spaf-train pretrain) tells "
            "neighbours better than %s does from %d cells on.", n_placed, model, OWN_FROM,
        )  # fmt: skip

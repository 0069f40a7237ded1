"""Models that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from spaf_model.model_directory import CONFIG_FILE

STARTER = "starter"  # used where no model is named

_FOLDER = Path(str(resources.files("spaf_model"))) / "models"


def shipped_models() -> list[str]:
    """Return the names of the models that come with the package, for `load_model`."""
    return sorted(file.parent.name for file in _FOLDER.glob(f"*/{CONFIG_FILE}"))


def model_path(model: str | Path) -> Path:
    """Return the folder of a model that is named or given by its path.

    A name of a shipped model goes before a folder of that name, so that it means the same everywhere; such a folder is
    given as ``./starter`` or as a `Path`.
    """
    if isinstance(model, str) and model in shipped_models():
        return _FOLDER / model
    return Path(model)

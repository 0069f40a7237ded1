"""Spatial single-cell foundation models: families of architectures, model directories and inference.

The public names are in ``__init__.pyi``; each is imported when it is first used.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = version("spaf-model")

"""Genes that a spatial experiment did not measure, by a reference that did, with what is known of their error.

The public names are in ``__init__.pyi``; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

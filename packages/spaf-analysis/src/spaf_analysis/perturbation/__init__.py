"""What genes do to a model's score of two cells, alone and together, in near pairs of cells against far ones.

The public names are in ``__init__.pyi``; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Where in the cell the transcripts of each gene lie, against permuted labels; the statistics are those of spaf-data.

The public names are in ``__init__.pyi``; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

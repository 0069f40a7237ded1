"""Tasks x methods x data sets, judged by the code of the analyses, in one table with intervals and verdicts.

The public names are in ``__init__.pyi``; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The tasks of the benchmark: each module of this folder that defines a `Task` adds it; nothing else names it."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

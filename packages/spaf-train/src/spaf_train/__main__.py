"""``python -m spaf_train``, which torchrun needs."""

from spaf_train.cli import command

command()

"""Run the command line as ``python -m spaf_model``."""

from spaf_model.cli import command

command()

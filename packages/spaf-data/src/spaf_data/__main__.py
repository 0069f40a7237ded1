"""Run the command line as ``python -m spaf_data``."""

from spaf_data.cli import main

main()

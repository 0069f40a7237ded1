"""Run the command line as ``python -m spaf_analysis``."""

from spaf_analysis.cli import main

main()

"""One of the processes of `test_distributed.py`: runs the command line again and again, as a new run each time.

A line of standard input is a list of the port at which the processes of a run meet and the arguments of the command.
The answer to each is a line: the exit code and what was written to standard error. To start Python and import torch
takes ten times as long as such a run.
"""

import contextlib
import io
import json
import os
import sys

from spaf_train.cli import main


def run(port: int, arguments: list[str]) -> tuple[int, str]:
    os.environ["MASTER_PORT"] = str(port)
    sys.argv = ["spaf-train", *arguments]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), errors.getvalue()
    return 0, errors.getvalue()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a command prints is no answer
    for line in sys.stdin:
        answers.write(json.dumps(run(*json.loads(line))) + "\n")
        answers.flush()

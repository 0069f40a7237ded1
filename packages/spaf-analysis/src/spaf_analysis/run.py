"""All stages in one go, each through the command line of its package."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spaf_analysis.errors import InputError


def run_stages(
    folder: Path,
    out: Path,
    *,
    context: Mapping[str, str | None] | None = None,
    config: str = "tissue",
    settings: Sequence[str] = (),
    announce: Callable[[str], None] | None = None,
) -> Path:
    """Build, pretrain and embed; the report is then made from what they wrote.

    Every stage is a process of its own, as if its command line had been typed: its memory is given back when it ends,
    and what it records of itself (time, peak memory) is its own.

    Parameters
    ----------
    folder
        A run of the instrument.
    out
        Folder to make: `build/`, `run/` and `embedded.h5ad` are written to it. It may exist if it is empty.
    context
        Tissue, condition, species and assay, where the user names them.
    config
        Preset or TOML file of `spaf-train pretrain`.
    settings
        Options of the training that differ from it, as "section.option=value".
    announce
        Called with the name of each stage when it begins.

    Returns
    -------
    pathlib.Path
        The embedded table.

    Raises
    ------
    InputError
        If `folder` is missing, `out` is not empty, or a stage fails; the stage has then said why on stderr.
    """
    announce = announce or (lambda stage: None)
    if not folder.exists():
        raise InputError(f"there is no folder {folder}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; give a folder of its own with --out.")
    out.mkdir(parents=True, exist_ok=True)
    described = [text for name, value in (context or {}).items() if value is not None for text in (f"--{name}", value)]
    build, run, embedded = out / "build", out / "run", out / "embedded.h5ad"
    announce("build: transcripts to cells, gene pairs and a corpus")
    _stage("spaf_data", "spaf-data", ["build", str(folder), "--out", str(build), *described])
    slides = sorted((build / "slides").glob("*.h5ad"))
    if len(slides) != 1:
        raise InputError(
            f"{folder} holds {len(slides)} slides; one at a time can be run here (use the four command lines)."
        )
    announce("pretrain: a model of this tissue")
    different = [text for setting in settings for text in ("--set", setting)]
    _stage(
        "spaf_train", "spaf-train", ["pretrain", config, "--data", str(build / "corpus"), "--out", str(run), *different]
    )
    announce("embed: every cell")
    _stage("spaf_model", "spaf-model", ["embed", str(slides[0]), "--model", str(run / "model"), "-o", str(embedded)])
    return embedded


def _stage(module: str, command: str, arguments: list[str]) -> None:
    """Run a command line in this Python, whatever the PATH holds."""
    code = f"import sys; sys.argv[0] = {command!r}; from {module}.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    if ended.returncode != 0:
        raise InputError(f"{command} {arguments[0]} failed (exit code {ended.returncode}); its message stands above.")

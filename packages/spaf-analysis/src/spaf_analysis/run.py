"""All stages in one go, each through the command line of its package."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anndata as ad

from spaf_analysis.errors import InputError
from spaf_analysis.keys import LABEL_PRED, UNKNOWN
from spaf_analysis.tables import labels_of, read_table
from spaf_analysis.together import one_table
from spaf_data import read_sheet
from spaf_model import replace_file


def run_stages(
    folder: Path,
    out: Path,
    *,
    context: Mapping[str, str | None] | None = None,
    config: str = "tissue",
    settings: Sequence[str] = (),
    pixel_size: float | None = None,
    radius: float | None = None,
    slide_key: str | None = None,
    reference: Path | None = None,
    label: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Path:
    """Build, pretrain, embed and label; the report is then made from what they wrote, of all slides.

    Every stage is a process of its own, as if its command line had been typed: its memory is given back when it ends,
    and what it records of itself (time, peak memory) is its own.

    Parameters
    ----------
    folder
        A run of the instrument, or what holds several slides: a folder of runs, a table, or a sheet (.csv, see
        `spaf_data.read_sheet`).
    out
        Folder to make: `build/`, `run/` and `embedded.h5ad` are written to it, `slides.h5ad` where there are
        several slides, and `annotated.h5ad` where there is a reference. It may exist if it is empty.
    context
        Tissue, condition, species and assay, where the user names them.
    config
        Preset or TOML file of `spaf-train pretrain`.
    settings
        Options of the training that differ from it, as "section.option=value".
    pixel_size
        Um a pixel, where positions are pixels and the run does not say it.
    radius
        Um within which cells are neighbours, for the corpus and the model; None: as `spaf-data build` has it.
    slide_key
        Column with the slide of each cell, where its name is not usual.
    reference, label
        An h5ad of labelled cells and the column of its `obs`, whose labels are carried to the cells by
        `spaf-analysis annotate` (from counts alone; the method is the best on held-out parts of the reference).
    announce
        Called with the name of each stage when it begins.

    Returns
    -------
    pathlib.Path
        The embedded table, with labels where there is a reference.

    Raises
    ------
    InputError
        If `folder` is missing, `out` is not empty, sheet or reference cannot be used, or a stage fails; the stage has
        then said why on stderr.
    """
    announce = announce or (lambda stage: None)
    if not folder.exists():
        raise InputError(f"there is no folder {folder}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; give a folder of its own with --out.")
    is_sheet = folder.is_file() and folder.suffix == ".csv"
    if is_sheet:
        read_sheet(folder)
    _check_reference(reference, label)
    out.mkdir(parents=True, exist_ok=True)
    options = {**(context or {}), "pixel-size": pixel_size, "radius": radius, "slide-key": slide_key}
    described = [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
    build, run, embedded = out / "build", out / "run", out / "embedded.h5ad"
    announce("build: transcripts to cells, gene pairs and a corpus")
    _stage(
        "spaf_data",
        "spaf-data",
        ["build", *(["--sheet"] if is_sheet else []), str(folder), "--out", str(build), *described],
    )
    slides = sorted((build / "slides").glob("*.h5ad"))
    table = slides[0]
    if len(slides) > 1:
        table = out / "slides.h5ad"
        replace_file(table, one_table(slides).write_h5ad)
    announce("pretrain: a model of this tissue")
    different = [text for setting in settings for text in ("--set", setting)]
    _stage(
        "spaf_train", "spaf-train", ["pretrain", config, "--data", str(build / "corpus"), "--out", str(run), *different]
    )
    announce("embed: every cell")
    _stage("spaf_model", "spaf-model", ["embed", str(table), "--model", str(run / "model"), "-o", str(embedded)])
    if reference is None or label is None:
        return embedded
    announce("annotate: labels of the reference")
    annotated = out / "annotated.h5ad"
    _stage(
        "spaf_analysis", "spaf-analysis",
        ["annotate", str(embedded), "--reference", str(reference), "--label", label, "-o", str(annotated)],
    )  # fmt: skip
    return annotated


def predicted_types(table: Path) -> str | None:
    """Return the column with the labels of a reference, where a table has at least two of them to compare."""
    adata = ad.read_h5ad(table, backed="r")
    try:
        known = set(adata.obs[LABEL_PRED].astype(str)) - {UNKNOWN} if LABEL_PRED in adata.obs else set()
    finally:
        adata.file.close()
    return LABEL_PRED if len(known) > 1 else None


def _check_reference(reference: Path | None, label: str | None) -> None:
    """Look at a reference before the stages, which take a while."""
    if (reference is None) != (label is None):
        raise InputError("labels are carried from a reference: give both --reference and --label.")
    if reference is not None and label is not None:
        try:
            labels_of(read_table(reference), label, "--label")
        except InputError as error:
            raise InputError(f"{reference}: {str(error).removeprefix(f'{reference} ')}") from error


def _stage(module: str, command: str, arguments: list[str]) -> None:
    """Run a command line in this Python, whatever the PATH holds."""
    code = f"import sys; sys.argv[0] = {command!r}; from {module}.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    if ended.returncode != 0:
        raise InputError(f"{command} {arguments[0]} failed (exit code {ended.returncode}); its message stands above.")

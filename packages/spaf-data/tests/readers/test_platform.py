"""The registry of platforms, and that each is what its class says."""

from dataclasses import dataclass, fields
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from spaf_data import InputError, ReadOptions, Transcripts, find_bundles, has_transcripts, read_transcripts
from spaf_data.options import PLATFORMS, READERS
from spaf_data.readers import _platform, api, knows_unit, slide_name

_LOOKED_AT: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class _Watched(ReadOptions):
    """Options that note which of them a reader looks at."""

    def __getattribute__(self, name: str) -> object:
        _LOOKED_AT.add(name)
        return super().__getattribute__(name)


@pytest.fixture
def watched() -> ReadOptions:
    """Default options whose fields, once looked at, are in `_LOOKED_AT`."""
    options = _Watched()
    _LOOKED_AT.clear()  # of what looked when they were made
    return options


class Beads(_platform.ReadsTranscripts[Path]):
    """A platform of a test: its runs have one file, and it takes no options."""

    name = "beads"
    options = ()
    transcripts_wanted = "beads.txt"

    def has_transcripts(self, run: Path) -> bool:
        return (run / "beads.txt").is_file()

    def read_transcripts(self, run, options, *, min_qv, progress=None):
        n = int((run / "beads.txt").read_text())
        return Transcripts.from_arrays(
            x=np.arange(n, dtype=float), y=np.zeros(n), gene=np.zeros(n, int), cell=np.zeros(n, int),
            genes=["VIM"], cells=["a"],
        )  # fmt: skip


def test_every_platform_reads_something() -> None:
    assert tuple(api.PLATFORMS) == PLATFORMS == tuple(READERS)
    for platform in api.PLATFORMS.values():
        assert isinstance(platform, _platform.ReadsTranscripts | _platform.ReadsCounts)


def test_every_option_is_one_of_some_platform() -> None:
    known = {field.name for field in fields(ReadOptions)}
    assert {option for platform in api.PLATFORMS.values() for option in platform.options} == known


def test_a_reader_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "beads.txt").write_text("3")
    with pytest.raises(InputError, match="one is not a run with transcripts; looked for transcripts.parquet"):
        read_transcripts(run)
    monkeypatch.setitem(api.PLATFORMS, "beads", Beads())
    assert has_transcripts(run)
    assert find_bundles(tmp_path / "runs") == [run]
    assert read_transcripts(run).account.kept == 3
    assert read_transcripts(run, platform="beads").account.kept == 3
    with pytest.raises(InputError, match=r"runs is not a run with transcripts; looked for .*; beads.txt \(beads\)"):
        read_transcripts(tmp_path / "runs")
    with pytest.raises(InputError, match=r"is not a run with transcripts; looked for beads.txt \(beads\)"):
        read_transcripts(tmp_path / "runs", platform="beads")


def test_xenium_looks_at_its_options(bundle: Path, watched: ReadOptions) -> None:
    platform = api.PLATFORMS["xenium"]
    platform.read_transcripts(bundle, watched, min_qv=20.0)
    assert {*platform.options} == _LOOKED_AT


def test_cosmx_looks_at_its_options(tmp_path: Path, watched: ReadOptions) -> None:
    table = pd.DataFrame({"fov": 1, "cell_ID": [3, 3], "x_global_px": 1.0, "y_global_px": [1.0, 2.0], "target": "VIM"})
    table.to_csv(tmp_path / "a_tx_file.csv", index=False)
    platform = api.PLATFORMS["cosmx"]
    platform.read_transcripts(tmp_path, watched, min_qv=20.0)
    assert {*platform.options} == _LOOKED_AT


def test_anndata_looks_at_its_options(watched: ReadOptions) -> None:
    cells = anndata.AnnData(
        np.array([[40]]), pd.DataFrame(index=["a"]), pd.DataFrame(index=["VIM"]), obsm={"spatial": np.ones((1, 2))}
    )
    platform = api.PLATFORMS["anndata"]
    platform.read_counts(cells, watched)
    assert {*platform.options} == _LOOKED_AT


def test_spatialcc_looks_at_its_options(tmp_path: Path, watched: ReadOptions) -> None:
    cells = {
        "Expression": [[3, 4]] * 2, "Gene": [["VIM", "KRT5"]] * 2, "Cell_id": ["a", "b"], "Sample_Names": ["s", "t"],
        "centroid_x": [1.0, 2.0], "centroid_y": [1.0, 9.0],
    }  # fmt: skip
    pd.DataFrame(cells).to_parquet(tmp_path / "cells.parquet")
    platform = api.PLATFORMS["spatialcc"]
    platform.read_counts(tmp_path, watched)
    assert {*platform.options} == _LOOKED_AT


def test_object_of_no_platform() -> None:
    with pytest.raises(InputError, match="the dict object is not a run with transcripts; looked for"):
        read_transcripts({})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("platform", "path", "name"),
    [
        ("xenium", "run-1/transcripts.parquet", "run-1"),
        ("xenium", "run-1/mine.csv.gz", "mine"),
        ("merscope", "region_0/detected_transcripts.csv", "region_0"),
        ("cosmx", "flat/lung-5_tx_file.csv.gz", "lung-5"),
        ("cosmx", "flat/tx_file.csv", "flat"),
        ("spatialdata", "a/slide.zarr", "slide"),
        ("anndata", "a/slide.v2.h5ad", "slide.v2"),
        ("anndata", "a/store", "store"),
        ("spatialcc", "a/data-00000-of-00001.arrow", "data-00000-of-00001"),
        ("table", "a/molecules.tsv.gz", "molecules"),
    ],
)
def test_name_of_the_slide_of_a_run(platform: str, path: str, name: str) -> None:
    assert api.PLATFORMS[platform].slide_name(Path(path)) == name


def test_name_of_a_slide_is_that_of_its_folder(bundle: Path) -> None:
    assert slide_name(bundle) == slide_name(bundle / "transcripts.parquet", platform="xenium") == bundle.name
    with pytest.raises(InputError, match="is not a run with transcripts or counts"):
        slide_name(bundle, platform="cosmx")


def test_who_knows_the_unit_of_places() -> None:
    known = {name for name in PLATFORMS if knows_unit(name)}
    assert known == {"xenium", "visium", "merscope", "cosmx"}
    assert not knows_unit("unheard of")

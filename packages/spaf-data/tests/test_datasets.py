import hashlib
import subprocess
import zipfile

import pytest

from spaf_data import InputError, datasets, read_transcripts

ROWS = "\r\n".join(
    [
        ",transcript_id,cell_id,overlaps_nucleus,feature_name,x_location,y_location,z_location,qv",
        "0,281496451551924,-1,0,RUNX1,1062.1926,469.34515,10.958567,40.0",
        "1,281496451551927,44769,1,NKG7,1062.7025,327.25198,15.099401,40.0",
        "2,281496451551928,44769,0,ACTA2,1062.9146,577.3213,11.937755,25.5",
        "",
    ]
)


class FakePip:
    """Stands in for pip: writes a wheel as pip would, or fails."""

    def __init__(self, stderr: str = "") -> None:
        self.stderr = stderr
        self.calls: list[list[str]] = []

    def __call__(self, command, **options):
        self.calls.append(command)
        if not self.stderr:
            folder = command[command.index("--dest") + 1]
            with zipfile.ZipFile(f"{folder}/bidcell-1.0.3-py3-none-any.whl", "w") as wheel:
                wheel.writestr(zipfile.ZipInfo("data/dataset_xenium_breast1_small/transcripts_small.csv"), ROWS)
        return subprocess.CompletedProcess(command, 1 if self.stderr else 0, "", self.stderr)


@pytest.fixture
def pip(monkeypatch, tmp_path):
    fake = FakePip()
    monkeypatch.setattr(datasets.subprocess, "run", fake)
    fake(["--dest", str(tmp_path)])
    fake.calls.clear()
    wheel = tmp_path / "bidcell-1.0.3-py3-none-any.whl"
    monkeypatch.setattr(datasets, "_WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    return fake


def test_first_time_and_second_time(pip, tmp_path):
    bundle = datasets.xenium_breast_window(tmp_path / "cache")
    assert datasets.xenium_breast_window(tmp_path / "cache") == bundle
    assert len(pip.calls) == 1
    command = pip.calls[0]
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--ignore-requires-python", "bidcell==1.0.3"} <= set(command)
    found = read_transcripts(bundle)
    assert found.account.as_dict() == {"read": 3, "controls": 0, "low_quality": 0, "unassigned": 1, "kept": 2}
    assert found.genes == ["ACTA2", "NKG7", "RUNX1"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["xenium_breast_window"]


def test_damaged_cache_is_fetched_again(pip, tmp_path):
    bundle = datasets.xenium_breast_window(tmp_path / "cache")
    whole = (bundle / "transcripts.parquet").read_bytes()
    (bundle / "transcripts.parquet").write_bytes(whole[:-1])
    assert datasets.xenium_breast_window(tmp_path / "cache") == bundle
    assert (bundle / "transcripts.parquet").read_bytes() == whole
    assert len(pip.calls) == 2


def test_offline_names_the_alternative(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.subprocess, "run", FakePip("WARNING: retrying\nERROR: No matching distribution\n"))
    with pytest.raises(InputError, match=r"could not be downloaded \(ERROR: No matching distribution\); .*your own"):
        datasets.xenium_breast_window(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_other_bytes_than_recorded(pip, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "_WHEEL_SHA256", "0" * 64)
    with pytest.raises(InputError, match=rf"its sha256 is [0-9a-f]{{64}}, expected {'0' * 64}"):
        datasets.xenium_breast_window(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())

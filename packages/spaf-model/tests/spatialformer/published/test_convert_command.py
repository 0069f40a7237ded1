import sys
from pathlib import Path
from typing import Any

import pytest

from spaf_model import SpatialFormer
from spaf_model.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["spaf-model", "convert", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_writes_a_model_directory(monkeypatch: pytest.MonkeyPatch, published: Any, tmp_path: Path) -> None:
    published.save("v1")
    output = tmp_path / "new" / "model"
    files = ("--vocabulary", published.vocabulary, "--scale", published.scale)
    assert run(monkeypatch, published.checkpoint, *files, "--attention", "flash", "-o", output) == 0
    model = SpatialFormer.from_pretrained(output)
    assert model.config.colocalization_head == "additive"
    assert model.config.attention_scale == 8**-0.5
    assert "flash (given at the conversion" in model.card


def test_from_the_wheel(monkeypatch: pytest.MonkeyPatch, published: Any, tmp_path: Path) -> None:
    published.save(hyper_parameters={"use_flash_attn": False})
    output = tmp_path / "model"
    assert run(monkeypatch, published.checkpoint, "--from-wheel", published.wheel, "-o", output) == 0
    assert SpatialFormer.from_pretrained(output).vocabulary.n_tokens == 60


def test_what_cannot_be_converted_is_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.save()
    output = tmp_path / "model"
    wheel = ("--from-wheel", published.wheel)
    cases = {
        "does not record which attention": (published.checkpoint, *wheel),
        "is not a checkpoint": (published.vocabulary, *wheel),
        "none.ckpt": (tmp_path / "none.ckpt", *wheel),
        "Give both vocabulary and scale": (published.checkpoint, "--attention", "flash"),
        "is not a readable pickle": (
            *(published.checkpoint, "--attention", "flash", "--vocabulary", published.vocabulary),
            *("--scale", published.vocabulary),
        ),
    }
    for message, arguments in cases.items():
        assert run(monkeypatch, *arguments, "-o", output) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("spaf-model: ")
        assert message in lines[0]
    assert not output.exists()
    assert run(monkeypatch, published.checkpoint, *wheel, "--attention", "guess", "-o", output) == 2

"""`retter config`: it writes a file, and never over one."""

import json
import resource
from pathlib import Path

import pytest

from retter.cli import main


def test_init_prints_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init"]) == 0
    assert '\nupstream = ":8080"\n' in capsys.readouterr().out


def test_init_writes_a_file_that_a_start_accepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "retter.toml"
    assert main(["config", "init", str(file)]) == 0
    assert main(["--config", str(file), "--check-config"]) == 0
    assert f"{file}: upstream" in capsys.readouterr().out


def test_a_file_that_exists_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "retter.toml"
    file.write_text("mine")
    assert main(["config", "init", str(file)]) == 1
    assert file.read_text() == "mine"
    assert capsys.readouterr().err == (
        f"retter config: {file} exists; give another name or remove it\n"
    )


def test_a_folder_that_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "init", str(tmp_path / "no" / "file")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_a_full_disk_leaves_no_part_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        assert main(["config", "init", str(tmp_path / "retter.toml")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.endswith("retter.toml: File too large\n")
    assert list(tmp_path.iterdir()) == []


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["upstream"]

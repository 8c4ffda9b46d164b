"""Completion: what bash, zsh and fish offer for a line that is half typed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from retter.cli import main
from retter.control.completion import SHELLS

DEADLINE_S = 30


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        with pytest.MonkeyPatch.context() as patch:
            written: list[str] = []
            patch.setattr("sys.stdout.write", written.append)
            assert main(["completion", shell]) == 0
        (folder / shell).write_text("".join(written))
    (folder / "retter.toml").write_text("")
    (folder / "folder").mkdir()
    return folder


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian's package {name} brings it)")
    return found


def run(*command: str, folder: Path) -> list[str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert "rror" not in done.stderr
    return done.stdout.split("\n")


def in_bash(words: list[str], folder: Path) -> set[str]:
    """Return what bash offers for the last word; its function is called as readline calls it."""
    quoted = " ".join([f"'{word}'" for word in words])
    program = (
        "source ./bash; compopt() { :; }; "  # which only completion itself may call
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _retter; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return set(run(shell("bash"), "-c", program, folder=folder)) - {""}


def in_fish(words: list[str], folder: Path) -> set[str]:
    program = f'source ./fish; complete -C "{" ".join(words)}"'
    lines = run(shell("fish"), "-c", program, folder=folder)
    return {line.split("\t")[0].rstrip("/") for line in lines} - {""}


LINES = [
    (["retter", "ci"], {"circuit"}),
    (["retter", "--loo"], {"--loop"}),
    (["retter", "--loop", ""], {"auto", "uvloop", "asyncio"}),
    (["retter", "--config", "ret"], {"retter.toml"}),
    (["retter", "circuit", "o"], {"open", "observe"}),
    (["retter", "circuit", "--fo"], {"--for"}),
    (["retter", "completion", ""], set(SHELLS)),
    (["retter", "config", "in"], {"init"}),
    (["retter", "demo", "--model", "f"], {"fixed"}),
    (["retter", "store", ""], {"info", "verify", "list", "export", "compact"}),
    (["retter", "store", "--store", "fol"], {"folder"}),
    (["retter", "store", "--store", "folder", "ver"], {"verify"}),
    (["retter", "store", "export", "fol"], {"folder"}),
    (["retter", "config", ""], {"init", "schema"}),
    (["retter", "config", "init", "ret"], {"retter.toml"}),
    (["retter", "circuit", "open", ""], set[str]()),
]


@pytest.mark.parametrize(("words", "offered"), LINES)
def test_bash_offers(words: list[str], offered: set[str], scripts: Path) -> None:
    assert in_bash(words, scripts) == offered


def test_bash_cuts_a_value_after_an_equals_sign(scripts: Path) -> None:
    assert in_bash(["retter", "--loop", "=", "u"], scripts) == {"uvloop"}
    assert in_bash(["retter", "--loop", "="], scripts) == {"auto", "uvloop", "asyncio"}


@pytest.mark.parametrize(("words", "offered"), LINES)
def test_fish_offers(words: list[str], offered: set[str], scripts: Path) -> None:
    assert in_fish(words, scripts) == offered


def test_zsh_reads_its_script(scripts: Path) -> None:
    assert run(shell("zsh"), "-n", "zsh", folder=scripts) == [""]


def test_zsh_gets_an_entry_for_each_command_and_option(scripts: Path) -> None:
    text = (scripts / "zsh").read_text()
    assert text.startswith("#compdef retter\n")
    for expected in ("'circuit:", "'*--loop[", ":value:(auto uvloop asyncio)", "_files -/"):
        assert expected in text


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("retter: completion: argument SHELL: invalid choice: 'tcsh'")
    assert "'bash', 'zsh', 'fish'" in told and told.count("\n") == 1

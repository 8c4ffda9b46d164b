"""What commands print, where it cannot be written."""

import os
import subprocess
import sys

import pytest

from retter.cli import main

COMMANDS = (
    ["--version"], ["--help"], ["config", "init"], ["completion", "bash"], ["status", "--help"],
    ["store", "--help"], ["load", "--help"],
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_line(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(command) == 1
    monkeypatch.setattr(sys, "stdout", None)
    assert main(command) == 1
    monkeypatch.undo()
    sys.stderr.flush()
    assert capfd.readouterr().err == (
        "retter: standard output: No space left on device\n"
        "retter: standard output: Bad file descriptor\n"
    )


def test_a_reader_that_leaves_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        assert main(["--help"]) == 0


def test_a_mistake_has_its_exit_code_without_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["--drain", "soon"]) == 2
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["--drain", "soon"]) == 2
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_the_first_three_descriptors_are_never_a_clients() -> None:
    """What a library writes to standard error would be sent to that client."""
    code = (
        "import os; from retter.__main__ import main; import retter.cli, sys; "
        "retter.cli.main = lambda: 0; sys.argv = ['retter']; main(); "
        "os._exit(any(os.readlink(f'/proc/self/fd/{n}') != os.devnull for n in range(3)))"
    )
    closed = 'exec "$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", closed, sys.executable, code]).returncode == 0


def test_a_command_without_standard_error_has_its_exit_code() -> None:
    command = f"{sys.executable} -m retter load --seconds soon http://127.0.0.1:1 2>&-"
    assert subprocess.run(["sh", "-c", command]).returncode == 2

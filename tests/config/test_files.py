"""The files that settings name: what may be read, how much of it, and for how long."""

import os
import threading
from pathlib import Path

import pytest

from retter.cli import main
from retter.config import files
from retter.config.files import check_file, read_file
from retter.config.settings import ConfigError, Settings
from retter.proxy.part_settings import error_page


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    return path


def refusal(path: str, bytes_max: int = 10, *, pipe: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        read_file("--config", path, bytes_max, pipe=pipe)
    return str(caught.value)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)  # as Kubernetes makes its secrets
    file.write_bytes(b"0123456789")
    for path in (file, link):
        assert read_file("x", str(path), 10) == b"0123456789"
        check_file("x", str(path), 10)
    file.write_bytes(b"0123456789x")
    assert refusal(str(link)) == f"--config: {link}: larger than the 10 allowed"
    with pytest.raises(ConfigError, match="larger than the 10 allowed"):
        check_file("x", str(file), 10)


def test_a_file_without_a_size_is_read_too() -> None:
    assert read_file("x", "/proc/self/status", 1 << 20).startswith(b"Name:")
    assert "larger" in refusal("/proc/self/status")


@pytest.mark.parametrize("pipe", [True, False])
def test_what_is_no_file_is_refused(tmp_path: Path, pipe: bool) -> None:
    wanted = "a file or a pipe" if pipe else "a file"
    said = f"--config: /dev/zero: it is a device; give {wanted}"
    assert refusal("/dev/zero", pipe=pipe) == said
    assert refusal(str(tmp_path), pipe=pipe) == f"--config: {tmp_path}: Is a directory"
    none = tmp_path / "none"
    assert refusal(str(none), pipe=pipe) == f"--config: {none}: No such file or directory"
    assert read_file("x", "/dev/null", 10, pipe=pipe) == b""


def test_a_pipe_is_read_to_its_end(fifo: str) -> None:
    def write() -> None:
        with open(fifo, "wb") as end:  # waits for the reader
            end.write(b"01234")
            end.flush()
            end.write(b"56789")

    writer = threading.Thread(target=write)
    writer.start()
    assert read_file("x", fifo, 10, pipe=True) == b"0123456789"
    writer.join()


def test_a_pipe_whose_writer_has_gone_gives_what_it_has_written() -> None:
    """As with `--config <(program)`."""
    reader, writer = os.pipe()
    os.write(writer, b"0123456789")
    os.close(writer)
    assert read_file("x", f"/dev/fd/{reader}", 10, pipe=True) == b"0123456789"
    assert os.get_blocking(reader), "it is the shell's too"
    os.close(reader)


def test_a_pipe_without_an_end_is_refused(fifo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_S", 0.01)
    said = "this pipe has not come to its end after 10ms"
    assert said in refusal(fifo, pipe=True)  # nobody writes to it
    both = os.open(fifo, os.O_RDWR)
    os.write(both, b"01234")
    assert said in refusal(fifo, pipe=True)  # its writer does not close it
    os.write(both, b"0" * 11)
    assert "larger than the 10 allowed" in refusal(fifo, pipe=True)
    os.close(both)
    check_file("x", fifo, 10, pipe=True)  # which reads nothing


SHARED = ("--shared", "redis://127.0.0.1:1", "--shared-secret")
TLS = ("--listen", "127.0.0.1:0,tls", "--tls-cert")


@pytest.mark.parametrize("path", ["fifo", "/dev/zero"])
@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (("--config",), "--config"),
        (("--error-page",), "--error-page"),
        (("--admin-token-file",), "--admin-token-file"),
        (SHARED, "--shared-secret"),
        (TLS, "--tls-cert"),
        (("--upstream", "https://a", "--upstream-ca"), "--upstream-ca"),
    ],
)
def test_each_setting_refuses_what_has_no_end(
    fifo: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    path: str,
    words: tuple[str, ...],
    setting: str,
) -> None:
    monkeypatch.setattr(files, "PIPE_S", 0.01)
    path = fifo if path == "fifo" else path
    listen = () if "--listen" in words else ("--listen", "127.0.0.1:0")
    upstream = () if "--upstream" in words else ("--upstream", ":1")
    check = () if (setting, path) == ("--error-page", fifo) else ("--check-config",)
    assert main([*listen, *upstream, "--admin", "off", *words, path, *check]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"retter: {setting}: {path}: ") and said.count("\n") == 1
    assert "pipe" in said or "it is a device" in said


def test_several_workers_need_an_error_page_that_each_can_read(
    fifo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--listen", "127.0.0.1:0", "--upstream", ":1", "--admin", "off", "--check-config"]
    assert main([*words, "--error-page", fifo]) == 0
    assert main([*words, "--error-page", fifo, "--workers", "2"]) == 2
    assert "it is a pipe, which can be read only once" in capsys.readouterr().err


def test_an_error_page_is_read_again_only_from_a_file(fifo: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(b"back soon")
    assert error_page(Settings(error_page=str(page)), pipe=False) == b"back soon"
    with pytest.raises(ConfigError, match="it is a pipe, which can be read only once"):
        error_page(Settings(error_page=fifo), pipe=False)


def test_a_command_takes_its_token_from_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """It reads the token once: `retter status --admin-token-file <(pass retter)`."""
    reader, writer = os.pipe()
    os.write(writer, b"correct-horse-battery\n")
    os.close(writer)
    where = ["--admin", "unix:/none/admin", "--admin-token-file", f"/dev/fd/{reader}"]
    assert main(["status", *where]) == 1  # nobody is there
    assert "token-file" not in capsys.readouterr().err
    assert os.read(reader, 1) == b"", "it was read"
    os.close(reader)


def test_a_command_names_its_token_file_as_it_was_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["status", "--admin-token-file", "/none/t"]) == 2
    assert capsys.readouterr().err.startswith("retter: --admin-token-file: /none/t: No such file")
    monkeypatch.setenv("RETTER_ADMIN_TOKEN_FILE", "/none/t")
    assert main(["status"]) == 2
    assert capsys.readouterr().err.startswith("retter: RETTER_ADMIN_TOKEN_FILE: /none/t: ")

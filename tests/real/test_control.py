"""The commands against a RETTER that runs: over TCP, over a Unix socket, in a terminal."""

import codecs
import contextlib
import fcntl
import json
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retter.cli import main
from retter.control import words
from tests.real.conftest import StartRetter
from tests.real.processes import (
    DEADLINE_S,
    ROOT,
    ApplicationProgram,
    Program,
    RetterProgram,
    UnhurriedRetter,
    eventually,
    free_port,
)
from tests.real.wire import fetch

TOKEN = "the-token-of-the-tests"
MOMENT = r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"  # with its date before midnight

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RETTER_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control") / "admin.sock"


@pytest.fixture(scope="module")
def retter(
    application: ApplicationProgram, start_retter_once: StartRetter, socket_path: Path
) -> RetterProgram:
    where = f"unix:{socket_path}"
    program = start_retter_once("--upstream", application.upstream, "--admin", where)
    assert program.port
    return program


@pytest.fixture
def run(retter: RetterProgram, socket_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on that RETTER; return exit code, output and complaints."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--admin", f"unix:{socket_path}"])
        return (code, *capsys.readouterr())

    return command


def test_status_is_for_people_or_for_programs(run: Run, retter: RetterProgram) -> None:
    assert fetch(retter.port, "GET", "/hello").status == 200
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert re.match(rf"[A-Z ]+  since {MOMENT}, for .*; the circuit is CLOSED\n", out)
    assert re.search(r"^  visitors +In the last 10 s, ", out, re.M)
    assert re.search(r"^  in force +automatic$", out, re.M)
    assert re.search(r"^  store +\d+ response", out, re.M)

    code, out, _ = run("status", "--json")
    assert code == 0
    assert json.loads(out)["state"] == "CLOSED"


def test_warm_stores_the_pages_of_the_site(run: Run, retter: RetterProgram) -> None:
    assert run("purge", "--all")[0] == 0
    code, out, _ = run("warm", f"http://127.0.0.1:{retter.port}/hello", "--pages", "3", "--json")
    assert code == 0
    assert json.loads(out)["good"] == 1
    assert json.loads(run("status", "--json")[1])["store"]["entries"] == 1


def is_what_is_left(said: str, of_s: float, begun: float) -> bool:
    """Whether these are the words for a time that has been running since then at the most."""
    gone_s = math.ceil(time.monotonic() - begun)
    return said in [words.length(of_s - gone) for gone in range(gone_s + 1)]


def test_the_circuit_is_held_for_a_time_and_let_go(run: Run) -> None:
    begun = time.monotonic()
    code, out, _ = run("circuit", "open", "--for", "90s")
    assert code == 0
    said = re.match(rf"in force: held open until {MOMENT} \((.*) more\)\nstate: OPEN\n", out)
    assert said is not None
    assert is_what_is_left(said[1], 90.0, begun)
    assert run("status")[1].startswith("HELD OPEN  since ")
    code, out, _ = run("circuit", "auto", "--json")
    assert code == 0
    assert json.loads(out)["forced"] is None


def test_the_circuit_without_a_mode_changes_nothing_and_lists_them(run: Run) -> None:
    assert run("circuit", "observe", "--for", "60s")[0] == 0
    code, out, err = run("circuit")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("in force: observe mode until ")
    modes = lines[lines.index("retter circuit MODE:") + 1 :]
    assert [line.split()[0] for line in modes] == ["auto", "open", "closed", "observe"]
    assert json.loads(run("circuit", "--json")[1])["forced"] == "observe"
    assert run("circuit", "auto")[1].startswith("in force: automatic\n")


def test_a_pause_ends_at_a_word(run: Run) -> None:
    begun = time.monotonic()
    code, out, _ = run("pause", "--for", "20s")
    assert code == 0
    said = re.search(rf"paused until {MOMENT} \((.*) more\)", out)
    assert said is not None
    assert is_what_is_left(said[1], 20.0, begun)
    assert json.loads(run("status", "--json")[1])["paused"] is True
    assert "paused" not in run("resume")[1]
    assert json.loads(run("status", "--json")[1])["paused"] is False


def test_why_tells_what_would_happen(run: Run, retter: RetterProgram) -> None:
    url = f"http://127.0.0.1:{retter.port}/echo"
    fetch(retter.port, "GET", "/echo")
    code, out, _ = run("why", url)
    assert code == 0
    assert out.startswith("It would be forwarded to the application.")
    assert re.search(r"^  key: owner +everyone$", out, re.M)
    somebody = json.loads(run("why", url, "--cookie", "PHPSESSID=abc", "--json")[1])
    other = json.loads(run("why", url, "--header", "Authorization: Basic YTpi", "--json")[1])
    owners = {somebody["key"]["owner_id"], other["key"]["owner_id"]}
    assert len(owners - {None}) == 2


def test_purge_tells_how_many(run: Run, retter: RetterProgram) -> None:
    base = f"http://127.0.0.1:{retter.port}"
    assert run("purge", "--all")[0] == 0
    for path in ("/echo?a", "/echo?b", "/hello"):
        fetch(retter.port, "GET", path)
    stored = json.loads(run("status", "--json")[1])["store"]["entries"]
    assert stored == 3
    assert run("purge", f"{base}/echo?a") == (0, "1 page dropped from the store\n", "")
    found = json.loads(run("purge", "--prefix", f"{base}/echo", "--json")[1])
    assert found == {"purged": 1, "complete": True}
    assert run("purge", "--session", "PHPSESSID=abc")[1] == "0 pages dropped from the store\n"
    assert run("purge", "--all")[1] == "1 page dropped from the store\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["purge", "--session", "_ga=1"], "retter: purge: '_ga=1': session must "),
        (["why", "/a b"], "retter: why: '/a b': the URL is empty, or has white space in it"),
        (["why", "ftp://a/"], "retter: why: 'ftp://a/': the URL is neither http://"),
    ],
)
def test_what_is_not_understood_is_a_line_and_exit_code_2(
    arguments: list[str], message: str, run: Run
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_nobody_there_is_a_line_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for where in (f"unix:{tmp_path}/nothing.sock", "127.0.0.1:1"):
        assert main(["status", "--admin", where]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"retter: no admin listener answers at {where} (")
        assert "--admin" in err
        assert err.count("\n") == 1
    assert main(["status", "--admin", "off"]) == 2
    assert capsys.readouterr().err.startswith("retter: --admin: there is no admin listener; ")


def test_something_else_there_is_told_from_retter(
    application: ApplicationProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--admin", f"127.0.0.1:{application.port}"]) == 1
    assert "is not an admin listener of RETTER" in capsys.readouterr().err


def test_a_token_and_the_file_that_names_the_place(
    application: ApplicationProgram,
    start_retter: StartRetter,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file and variables with which RETTER was started also tell the commands where it is."""
    program = start_retter(
        "--upstream", application.upstream, "--admin", "127.0.0.1:0", "--admin-token", TOKEN
    )
    line = program.wait_for_line(lambda line: '"serving"' in line)
    file = tmp_path / "retter.toml"
    file.write_text(f'admin = "{json.loads(line)["admin"].removeprefix("http://")}"\n')

    assert main(["status", "--config", str(file)]) == 1
    assert "requires a token: --admin-token" in capsys.readouterr().err
    assert main(["status", "--config", str(file), "--admin-token", "x" * 16]) == 1
    assert "requires another token" in capsys.readouterr().err
    monkeypatch.setenv("RETTER_ADMIN_TOKEN", TOKEN)
    monkeypatch.setenv("RETTER_CONFIG", str(file))
    assert main(["status"]) == 0
    assert "; the circuit is CLOSED\n" in capsys.readouterr().out


# retter top


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self._own, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(its)
        self._its = its
        self.process = subprocess.Popen(
            [sys.executable, "-m", "retter", *arguments],
            stdin=its,
            stdout=its,
            stderr=its,
            cwd=ROOT,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "TERM": "xterm", "LANG": "C.UTF-8"} | variables,
        )
        self.output = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # characters may come in parts

    def shows(self, wanted: str) -> bool:
        while select.select([self._own], [], [], 0)[0]:
            self.output += self._decoder.decode(os.read(self._own, 65536))
        return wanted in self.output

    def types(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def ends(self) -> int:
        code = self.process.wait(DEADLINE_S)
        self.shows("")
        return code

    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self._its)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._own)
        os.close(self._its)


@pytest.fixture
def terminal(retter: RetterProgram, socket_path: Path) -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(**variables: Any) -> Terminal:
        started.append(Terminal("top", "--admin", f"unix:{socket_path}", **variables))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_top_is_live_until_q(terminal: Callable[..., Terminal], run: Run) -> None:
    eventually(lambda: "circuit is CLOSED" in run("status")[1], "after the word of the operator")
    top = terminal()
    eventually(lambda: top.shows("in flight"), "the first screen")
    first = top.output
    assert re.match(r"\x1b\[[?]1049h\x1b\[[?]25l\x1b\[H\x1b\[1;32m[A-Z ]+  since ", first)
    assert "q quits" in first
    eventually(lambda: top.shows("") and top.output.count("\x1b[H") > 1, "the next one")
    top.types("q")
    assert top.ends() == 0
    assert top.output.endswith("\x1b[?25h\x1b[?1049l")
    assert top.attributes() == top.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_gives_the_terminal_back(terminal: Callable[..., Terminal], number: int) -> None:
    top = terminal(NO_COLOR="1")
    eventually(lambda: top.shows("q quits"), "the first screen")
    assert "\x1b[1;" not in top.output
    top.process.send_signal(number)
    assert top.ends() == 130
    assert top.output.endswith("\x1b[?25h\x1b[?1049l")
    assert top.attributes() == top.before


def test_top_says_that_retter_is_gone(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    where = f"unix:{tmp_path}/a.sock"
    program = start_retter("--upstream", application.upstream, "--admin", where)
    assert program.port
    top = Terminal("top", "--admin", where)
    try:
        eventually(lambda: top.shows("q quits"), "the first screen")
        program.stop()
        eventually(lambda: top.shows("no answer since"), "the trouble")
        top.types("q")
        assert top.ends() == 0
    finally:
        top.close()


def test_top_without_a_terminal_writes_lines(retter: RetterProgram, socket_path: Path) -> None:
    # The state depends on what the tests before it have asked, and on how busy the machine is.
    line = r"\d\d:\d\d:\d\d (CLOSED|LIMITING|OPEN) "
    for extra, start in (((), line), (("--json",), '{"version"')):
        top = subprocess.Popen(
            [sys.executable, "-m", "retter", "top", "--admin", f"unix:{socket_path}", *extra],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert top.stdout is not None
        assert top.stderr is not None
        for _ in range(2):
            assert re.match(start, top.stdout.readline())
        top.stdout.close()  # as `head -2` does
        assert top.wait(DEADLINE_S) == 0
        with contextlib.closing(top.stderr):
            assert top.stderr.read() == ""


def test_what_is_not_there_is_told_and_its_return_without_a_visitor(
    start_retter: StartRetter, programs: list[Program], capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    upstream = ("--upstream", f"127.0.0.1:{port}")
    program = start_retter(*upstream, "--admin", "127.0.0.1:0", kind=UnhurriedRetter)
    line = program.wait_for_line(lambda line: '"serving"' in line)
    admin = json.loads(line)["admin"].removeprefix("http://")

    def told(row: str) -> str | None:
        assert main(["status", "--admin", admin]) == 0
        out = capsys.readouterr().out
        return out if out.startswith(f"{row}  since ") else None

    nothing = eventually(lambda: told("NOTHING THERE"), "it looks")
    assert nothing is not None and f"Nothing answers at 127.0.0.1:{port}: connection" in nothing
    programs.append(ApplicationProgram(str(port)))
    # Nobody asks for anything: the address is tried all the same.
    there = eventually(lambda: told("NO VISITOR"), "it looks again")
    assert there is not None and "The application is there. No visitor has come yet." in there
    assert fetch(program.port, "GET", "/hello").status == 200
    answered = told("WELL")
    assert answered is not None and "the one GET got a page" in answered

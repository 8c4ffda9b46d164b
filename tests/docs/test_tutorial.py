"""The tutorial, command by command, on a real WordPress. Collected only by `make tutorial-test`.

Ports and the path of the program are replaced; what is typed is otherwise as it stands there.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.overload.wordpress import PACKAGES, POSTS, WordPress, missing
from tests.real.processes import ROOT, Program, eventually, free_port

PAGE = (ROOT / "docs/tutorial.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*)\n```$", PAGE, re.MULTILINE)

# What each command is for, in their order; the number of commands is checked with them.
STEPS = (
    "application",
    "retter",
    "head",
    "warm",
    "load",
    "status",
    "freeze",
    "stored",
    "why",
    "wake",
)


class Trial:
    """The programs of the tutorial, and the commands as they are typed."""

    def __init__(self, site: WordPress, retter: Program, listen: int, admin: int) -> None:
        self.database = site.database
        self._places = {
            "http://127.0.0.1:8089": f"http://127.0.0.1:{listen}",
            ".venv/bin/retter": f"{sys.executable} -m retter",
            "$DATABASE": str(site.database.pid),
        }
        self._environment = os.environ | {"RETTER_ADMIN": f"127.0.0.1:{admin}"}

    def run(self, step: str, *more: str) -> str:
        command = COMMANDS[STEPS.index(step)]
        for there, here in self._places.items():
            command = command.replace(there, here)
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-c", " ".join([command, *more])],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def state(self) -> str:
        found: str = json.loads(self.run("status", "--json"))["state"]
        return found


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    assert not missing(), f"{missing()} is not installed; on Debian: apt install {PACKAGES}"
    # Where the user of the database may go: pytest's own folders are for one user alone.
    with tempfile.TemporaryDirectory(prefix="retter-tutorial-") as folder:
        yield from _trial(WordPress(Path(folder)))


def _trial(site: WordPress) -> Iterator[Trial]:
    listen, admin = free_port(), free_port()
    retter: Program | None = None
    try:
        site.start()
        retter = Program(
            [sys.executable, "-m", "retter", "--upstream", f":{site.port}", "--listen",
             f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}", "--log-format", "json"]
        )  # fmt: skip
        retter.wait_for_line(lambda line: '"serving"' in line)
        yield Trial(site, retter, listen, admin)
    finally:
        if retter is not None:
            retter.kill()
        site.stop()


def test_each_command_of_the_page_has_its_step() -> None:
    assert len(COMMANDS) == len(STEPS)
    for step, word in {"application": "wordpress", "retter": "run", "freeze": "-STOP"}.items():
        assert word in COMMANDS[STEPS.index(step)]
    packages = re.findall(r"^    apt install (.*)$", PAGE, re.MULTILINE)
    assert set(packages[0].split()) == set(PACKAGES.split())


def test_the_first_command_starts_an_application_and_ends_it(tmp_path: Path) -> None:
    port = free_port()
    program = Program([sys.executable, "-m", "benchmarks.overload.wordpress", "--port", str(port)])
    try:
        line = program.wait_for_line(lambda line: "Ctrl-C ends all" in line)
        process = Path("/proc") / re.findall(r"process (\d+)", line)[0]
        assert process.exists()
        program.signal(signal.SIGINT)
        assert program.wait() == 0
        assert not process.exists()
    finally:
        program.kill()


def test_the_tutorial(trial: Trial) -> None:
    assert "HTTP/1.1 200" in trial.run("head")
    eventually(lambda: trial.state() == "CLOSED", "it is calm")
    warmed = json.loads(trial.run("warm", "--json"))
    assert warmed["good"] >= POSTS
    assert warmed["reason"] == ""
    assert warmed["failed"] <= 2  # a sitemap may name a page that is not there
    assert warmed["entries"] >= POSTS

    table = trial.run("load")
    found = dict(re.findall(r"^ +(fresh|stored), from .*?([\d,]+) ", table, re.M))
    counts = {word: int(figure.replace(",", "")) for word, figure in found.items()}
    assert counts["stored"] > counts["fresh"] > 0, table
    eventually(lambda: trial.state() == "CLOSED", "it is calm again")

    trial.run("freeze")
    heads = [trial.run("stored") for _ in range(12)]
    assert all("HTTP/1.1 200" in head for head in heads)
    stored = [head for head in heads if re.search(r"^x-retter: cache", head, re.M | re.I)]
    assert len(stored) >= 10, heads
    assert "stored" in trial.run("why")

    trial.run("wake")
    eventually(lambda: trial.state() == "CLOSED", "it has recovered by itself")

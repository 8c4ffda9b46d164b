"""RETTER and programs that others wrote, check by check."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.real.processes import ROOT, ApplicationProgram, Program, RetterProgram, free_port
from tests.real.wire import fetch

PROGRAM_TIMEOUT_S = 120
# Slow clients of each kind, and how long they try. RETTER gives them LIMIT_S.
SLOW_CLIENTS = 200
SLOW_S = 9
LIMIT_S = 2


class Skipped(Exception):
    """A program is not there; the message says which, and how to get it."""


@dataclass(frozen=True)
class Check:
    name: str
    held: bool
    note: str = ""


def _need(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise Skipped(f"{program} is not installed (Debian's package {package} brings it)")
    return found


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PROGRAM_TIMEOUT_S,
        cwd=ROOT,
        check=False,
    )


@contextlib.contextmanager
def _behind(application: Program, *arguments: str) -> Iterator[RetterProgram]:
    """RETTER in front of an application; in the end both are gone."""
    retter = RetterProgram(*arguments)
    try:
        assert retter.port
        yield retter
    finally:
        retter.stop()
        retter.kill()
        application.kill()


# -- slowhttptest ---------------------------------------------------------------------------------

_MODES = {
    "slow heads (slowloris)": ("/page", "-H", "-i", "1"),
    "slow bodies": ("/upload", "-B", "-i", "4", "-s", "8192"),
    "slow readers": ("/download?bytes=30000000", "-X", "-w", "10", "-y", "20", "-n", "3"),
}
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class _Visitors:
    """Ordinary requests, one after the other, while something else is going on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._visit)
        self.statuses: list[int] = []

    def __enter__(self) -> "_Visitors":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _visit(self) -> None:
        while not self._over.is_set():
            try:
                self.statuses.append(fetch(self._port, "GET", "/visitor").status)
            except OSError:
                self.statuses.append(0)
            time.sleep(0.05)


def slowhttptest() -> Iterator[Check]:
    """Slow clients lose their connections, everybody else gets answers."""
    program = _need("slowhttptest", "slowhttptest")
    for name, (target, *arguments) in _MODES.items():
        application = ApplicationProgram()
        limits = [
            f"--{limit}={LIMIT_S}s"
            for limit in ("head-timeout", "body-idle-timeout", "write-timeout", "keep-alive")
        ]
        with _behind(application, "--upstream", application.upstream, *limits) as retter:
            with _Visitors(retter.port) as visitors:
                done = _run(
                    program, *arguments, "-c", str(SLOW_CLIENTS), "-r", str(SLOW_CLIENTS),
                    "-l", str(SLOW_S), "-p", "2",
                    "-u", f"http://127.0.0.1:{retter.port}{target}",
                )  # fmt: skip
            output = _COLOURS.sub("", done.stdout + done.stderr)
            services = re.findall(r"service available:\s+(\w+)", output)
            yield Check(
                f"{name}: it says that the service is available",
                bool(services) and set(services) == {"YES"},
            )
            good = visitors.statuses.count(200)
            yield Check(
                f"{name}: every visitor is answered",
                good == len(visitors.statuses) > 20,
                f"{good} of {len(visitors.statuses)}",
            )
            if "-X" not in arguments:  # what is on its way to them is in the kernel's hands
                closed = "No open connections left" in output
                yield Check(f"{name}: the slow ones lose their connections", closed)
            yield Check(f"{name}: RETTER complains of nothing", not retter.complaints())


# -- suites of our own, over other people's programs ----------------------------------------------


def _suite(path: str) -> Iterator[Check]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = _run(sys.executable, "-m", "pytest", "-q", path, f"--junitxml={report}")
        if not report.exists():
            yield Check(path, False, done.stdout[-500:])
            return
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("name", "?").removeprefix("test_")
            if case.find("skipped") is None:
                bad = case.find("failure") is not None or case.find("error") is not None
                yield Check(name, not bad)


def curl() -> Iterator[Check]:
    """The features of curl, through RETTER."""
    _need("curl", "curl")
    yield from _suite("tests/real/test_curl.py")


def websockets() -> Iterator[Check]:
    """The websockets library on both sides of RETTER, on both event loops."""
    if importlib.util.find_spec("websockets") is None:
        raise Skipped("websockets is not installed (pip install websockets)")
    yield from _suite("tests/real/test_websocket.py")


# -- REDbot ---------------------------------------------------------------------------------------


def _redbot() -> str:
    # It wants other packages than the tests do, so it has an environment of its own.
    beside = Path(sys.executable).parent.parent / "redbot" / "bin" / "redbot"
    if os.access(beside, os.X_OK):
        return str(beside)
    return _need("redbot", "none; pip install redbot")


def _judge(redbot: str, name: str, url: str) -> Iterator[Check]:
    done = _run(redbot, "-o", "har", url)
    try:
        entry = json.loads(done.stdout)["log"]["entries"][0]
        notes = [(note["level"], note["summary"]) for note in entry["_red_messages"]]
    except (ValueError, KeyError, IndexError) as error:
        yield Check(f"{name}: it is judged", False, repr(error) + done.stderr[-300:])
        return
    bad = [summary for level, summary in notes if level == "BAD"]
    yield Check(f"{name} ({entry['response']['status']}): nothing bad", not bad, "; ".join(bad))
    yield Check(f"{name}: it was looked at", len(notes) > 2, f"{len(notes)} notes")


def redbot() -> Iterator[Check]:
    """Pages as the application serves them, as the store does, and our own errors."""
    program = _redbot()
    port = free_port()
    shop = Program([sys.executable, "-m", "retter", "demo", "--listen", f"127.0.0.1:{port}"])
    shop.wait_for_line(lambda line: str(port) in line)
    with _behind(shop, "--upstream", f"127.0.0.1:{port}", "--connect-hold", "0") as retter:
        url = f"http://127.0.0.1:{retter.port}"
        yield from _judge(program, "a fresh page", url + "/")
        shop.kill()
        yield Check("the stored page is stored", fetch(retter.port, "GET", "/").stored)
        yield from _judge(program, "a stored page", url + "/")
        yield from _judge(program, "an error of our own", url + "/never-seen")


AREAS = {
    "slowhttptest": slowhttptest, "curl": curl, "websockets": websockets, "REDbot": redbot,
}  # fmt: skip

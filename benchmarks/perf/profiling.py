"""Where RETTER's time and memory go: flame graphs by py-spy, and what requests leave allocated."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.perf import machine
from benchmarks.perf.load import LoadFailed
from benchmarks.perf.peers import ROOT, VENV, Peer, Retter, Site, install, path_of
from benchmarks.perf.results import FOLDER
from benchmarks.perf.runner import Entrant, entrants
from benchmarks.perf.scenarios import Scenario

SAMPLES_PER_S: Final = 500
READING_S: Final = 60.0  # a snapshot of a traced process takes its time
LINES: Final = 12


class Watched(Retter):
    """RETTER inside the program that tells of its memory."""

    def __init__(self, *, trace: bool) -> None:
        self._trace = trace

    def command(self, site: Site) -> Sequence[str]:
        """Return the command line."""
        _, _, _, *options = super().command(site)
        trace = ("--trace",) if self._trace else ()
        return (
            sys.executable, "-m", "benchmarks.perf.allocations", str(site.folder / "reading.json"),
            *trace, "--", *options,
        )  # fmt: skip


@contextlib.contextmanager
def _alone(scenario: Scenario, peer: Peer, cores: machine.Cores) -> Generator[Entrant]:
    skipped: list[str] = []
    with tempfile.TemporaryDirectory(prefix="retter-profile-") as name:
        os.chmod(name, 0o755)
        with entrants(scenario, [peer], cores, Path(name), skipped) as found:
            if not found:
                raise LoadFailed("; ".join(skipped))
            yield found[0]


def py_spy() -> str:
    """Return py-spy's path, after installing it where it is not.

    Raises:
        StartFailed: It cannot be installed.
    """
    own = VENV / "bin" / "py-spy"
    if not (found := path_of("py-spy")) and not own.exists():
        install("py-spy")
    return found or str(own)


def flame_graph(scenario: Scenario, seconds: int, cores: machine.Cores) -> Path:
    """Write the flame graph of a scenario and return its path.

    Raises:
        LoadFailed: py-spy or wrk failed.
    """
    target = FOLDER / f"flame-{scenario.name}.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(scenario, Retter(), cores) as entrant:
        recorder = subprocess.Popen(
            ["taskset", "-c", str(cores.rest), py_spy(), "record",
             "--pid", str(entrant.running.pids[0]), "--duration", str(seconds),
             "--rate", str(SAMPLES_PER_S), "--output", str(target)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        )  # fmt: skip
        try:
            entrant.load(scenario, seconds + 1, 0, cores)
        finally:
            said, _ = recorder.communicate(timeout=READING_S)
    if recorder.returncode:
        raise LoadFailed(f"py-spy: {said.strip()[-400:]}")
    return target


@dataclass(frozen=True, slots=True)
class Left:
    """What requests have left allocated after a scenario's load."""

    requests: int
    blocks: float  # for each request
    collections: tuple[float, ...]  # of each generation, for a thousand requests
    collection_ms: float  # of a full garbage collection afterwards
    objects: int  # that the garbage collector looks at
    lines: tuple[tuple[str, float], ...]  # bytes for each request by line of code


def allocations(scenario: Scenario, seconds: int, cores: machine.Cores, *, trace: bool) -> Left:
    """Load RETTER, read its memory, load it once more, read again, and return the difference.

    Raises:
        LoadFailed: wrk or the reading failed.
    """
    with _alone(scenario, Watched(trace=trace), cores) as entrant:
        entrant.load(scenario, seconds, 0, cores)
        before = _reading(entrant)
        requests = entrant.load(scenario, seconds, 1, cores).requests
        after = _reading(entrant)
    if not requests:
        raise LoadFailed("no request was answered")
    return left_by(requests, before, after)


def left_by(requests: int, before: dict[str, Any], after: dict[str, Any]) -> Left:
    """Return the difference of two readings."""
    grown = {
        line: size - before["held_bytes"].get(line, 0) for line, size in after["held_bytes"].items()
    }
    most = sorted(grown.items(), key=lambda item: -item[1])[:LINES]
    return Left(
        requests=requests,
        blocks=(after["blocks"] - before["blocks"]) / requests,
        collections=tuple(
            1000 * (late - early) / requests
            for early, late in zip(before["collections"], after["collections"], strict=True)
        ),
        collection_ms=after["collection_ms"],
        objects=after["objects"],
        lines=tuple((line, size / requests) for line, size in most if size > 0),
    )


def _reading(entrant: Entrant) -> dict[str, Any]:
    file = entrant.folder / "reading.json"
    file.unlink(missing_ok=True)
    os.kill(entrant.running.pids[0], signal.SIGUSR1)
    deadline = time.monotonic() + READING_S
    while not file.exists():
        if time.monotonic() > deadline or not entrant.running.alive():
            raise LoadFailed(f"no reading: {entrant.running.last_words()}")
        time.sleep(0.05)
    reading: dict[str, Any] = json.loads(file.read_text())
    return reading


def describe(scenario: Scenario, plain: Left, traced: Left) -> str:
    """Return what was found as text."""
    generations = ", ".join(f"{count:.2f}" for count in plain.collections)
    lines = "".join(
        f"    {size:9.2f} B  {line.replace(str(ROOT) + '/', '')}\n" for line, size in traced.lines
    )
    return (
        f"{scenario.name}: after {plain.requests:,} more requests {plain.blocks:+.4f} memory "
        f"blocks a request\n  collections per 1,000 requests by generation: {generations}; "
        f"a full one takes {plain.collection_ms:.1f} ms over {plain.objects:,} objects\n"
        f"  bytes a request that lines hold more than before ({traced.requests:,} requests):\n"
        f"{lines}"
    )

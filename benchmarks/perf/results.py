"""A result: all windows with the machine, the versions, the commit and the flags, as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.perf.figures import Figures, Window, figures
from benchmarks.perf.scenarios import Mode

FORMAT: Final = 1
FOLDER: Final = Path(__file__).parent.parent / "results"

# The peer that all others are compared with, for each way of answering.
BASE: Final = {Mode.FORWARD: "nginx", Mode.STORE: "nginx-stale"}


@dataclass(slots=True)
class Series:
    """One peer in one scenario."""

    scenario: str
    peer: str
    command: str
    windows: list[Window] = field(default_factory=list[Window])
    rss_start_bytes: int = 0
    rss_after_bytes: int = 0
    idle_connections: int = 0
    body_bytes: int = 0  # of one answer, as it was on the wire
    idle_bytes: float = 0  # resident memory for each idle connection
    system_calls: dict[str, float] = field(default_factory=dict[str, float])  # for each request

    def figures(self) -> Figures:
        """Return the figures of all windows."""
        return figures(self.windows)


@dataclass(slots=True)
class Result:
    """One run of the suite."""

    began: str  # ISO 8601, UTC
    commit: str
    flags: list[str]
    seconds: int
    machine: dict[str, str]
    versions: dict[str, str]  # by peer and tool
    skipped: list[str] = field(default_factory=list[str])
    series: list[Series] = field(default_factory=list[Series])

    def scenarios(self) -> list[str]:
        """Return the scenarios that were measured, in their order."""
        return list(dict.fromkeys(series.scenario for series in self.series))

    def of(self, scenario: str) -> list[Series]:
        """Return what was measured in a scenario."""
        return [series for series in self.series if series.scenario == scenario and series.windows]

    def find(self, scenario: str, peer: str) -> Series | None:
        """Return one series, or None when it was not measured."""
        return next((one for one in self.of(scenario) if one.peer == peer), None)

    def base(self, scenario: str) -> Series | None:
        """Return the series to compare the others of a scenario with."""
        mode = Mode.STORE if scenario.startswith(Mode.STORE.value) else Mode.FORWARD
        return self.find(scenario, BASE[mode])


def dump(result: Result) -> str:
    """Return a result as JSON."""
    return json.dumps({"format": FORMAT, **asdict(result)}, indent=1) + "\n"


def parse(text: str) -> Result:
    """Read a result.

    Raises:
        ValueError: It is none of ours or of another format.
    """
    try:
        raw: dict[str, Any] = json.loads(text)
        if raw.pop("format") != FORMAT:
            raise ValueError("a result of another format")
        series = [
            Series(windows=[Window(**window) for window in one.pop("windows")], **one)
            for one in raw.pop("series")
        ]
        return Result(**raw, series=series)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a result of this suite: {error}") from error


def load(path: Path) -> Result:
    """Read a result from a file.

    Raises:
        ValueError: It is none of ours.
        OSError: It cannot be read.
    """
    return parse(path.read_text())


def latest(folder: Path = FOLDER) -> Path | None:
    """Return the newest result, or None without any."""
    files = sorted(folder.glob("perf-*.json"), key=lambda file: file.stat().st_mtime)
    return files[-1] if files else None


def merged(results: Sequence[Result]) -> Result:
    """Return one result of several; of a series that stands in two the later one counts.

    Raises:
        ValueError: There is none.
    """
    if not results:
        raise ValueError("no result")
    *_, last = results
    series = {(one.scenario, one.peer): one for result in results for one in result.series}
    versions = {name: text for result in results for name, text in result.versions.items()}
    skipped = list(dict.fromkeys(line for result in results for line in result.skipped))
    return Result(
        began=last.began,
        commit=last.commit,
        flags=last.flags,
        seconds=last.seconds,
        machine=last.machine,
        versions=versions,
        skipped=skipped,
        series=list(series.values()),
    )

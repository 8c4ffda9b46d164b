"""The log lines about the store on disk, and how often they come."""

from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from retter.disk.shelf import ShelfFigures
from retter.process.disk_log import DiskLog


class Disk:
    """The figures of a shelf on disk."""

    path = "/store/pages"

    def __init__(self) -> None:
        self.figures = ShelfFigures()
        self.set_aside = self.trouble = ""
        self.drops_damaged = False
        self.is_spared = False


def log_of(disk: Disk | None) -> DiskLog:
    services: Any = SimpleNamespace(disk=disk)
    return DiskLog(services)


def said(log: DiskLog, times: int = 1) -> list[str]:
    with capture_logs() as lines:
        for second in range(times):
            log.on_second(float(second))
    return [line["event"] for line in lines]


def test_without_a_disk_or_news_nothing_is_said() -> None:
    assert said(log_of(None), 3) == said(log_of(Disk()), 3) == []


def test_what_lasts_is_said_once() -> None:
    disk = Disk()
    disk.set_aside, disk.trouble = "not a database", "Input/output error"
    disk.drops_damaged = True
    assert said(log_of(disk), 5) == ["store-set-aside", "store-drops-damaged", "store-failed"]


def test_what_the_next_start_does_with_the_file_is_said() -> None:
    disk = Disk()
    disk.trouble, disk.is_spared = "another process has made it larger", True
    with capture_logs() as lines:
        log_of(disk).on_second(0.0)
    assert lines[0]["advice"].endswith("the next start uses the file again")


def test_failed_writes_are_said_once_until_one_succeeds() -> None:
    disk = Disk()
    log = log_of(disk)
    disk.figures.commit_failures, disk.figures.commits, disk.figures.last_failure = (
        1,
        7,
        "No space left on device",
    )
    assert said(log) == ["store-not-written"]
    disk.figures.commit_failures = 2
    assert said(log, 3) == []
    disk.figures.commits = 8
    assert said(log, 3) == ["store-written-again"]
    disk.figures.commit_failures = 3
    assert said(log) == ["store-not-written"], "it is news again"


def test_damaged_responses_are_counted_since_the_last_line() -> None:
    disk = Disk()
    log = log_of(disk)
    for damaged, new in ((2, 2), (2, None), (5, 3)):
        disk.figures.damaged = damaged
        with capture_logs() as lines:
            log.on_second(0.0)
        assert [line["responses"] for line in lines] == ([] if new is None else [new])

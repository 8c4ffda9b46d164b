"""The log lines about the server that boxes share, and how often they come."""

from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from retter.process.far_log import FarLog


class Far:
    """As much of a shelf as is looked at."""

    boxes = 1
    trouble = ""

    def away(self, now: float) -> str:
        return self.trouble


def said(log: FarLog, times: int = 1) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        for second in range(times):
            log.on_second(float(second))
    return [dict(line) for line in lines]


def test_each_change_is_said_once() -> None:
    far = Far()
    services: Any = SimpleNamespace(far=far, place=None)
    log = FarLog(services)
    assert said(log, 3) == []
    far.trouble = "connection refused"
    (line,) = said(log, 3)
    assert (line["event"], line["error"]) == ("shared-store-away", "connection refused")
    far.trouble = "timed out"
    assert said(log, 3) == [], "it is still away"
    far.trouble = ""
    far.boxes = 2
    back, boxes = said(log, 3)
    assert back["event"] == "shared-store-back"
    assert (boxes["event"], boxes["boxes"], boxes["before"]) == ("boxes", 2, 1)


def test_without_other_boxes_nothing_is_said() -> None:
    services: Any = SimpleNamespace(far=None, place=None)
    assert said(FarLog(services), 3) == []


def test_one_of_several_workers_says_it_for_all() -> None:
    far = Far()
    far.trouble = "connection refused"
    for leads, count in ((True, 1), (False, 0)):
        services: Any = SimpleNamespace(far=far, place=SimpleNamespace(leads=leads))
        assert len(said(FarLog(services), 2)) == count

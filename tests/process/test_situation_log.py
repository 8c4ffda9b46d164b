"""The situation in the log: when it changes for visitors, and what an incident was."""

from typing import Any

from structlog.testing import capture_logs

from retter.process.situation_log import AGAIN_S, SituationLog
from tests.support.admin import FakeAdmin, admin_of
from tests.support.harness import get, reply


def logged(admin: FakeAdmin) -> SituationLog:
    log = SituationLog(admin.admin.watch)
    admin.proxy.proxy.ticker.on_second.append(log.on_second)
    return log


def events(records: list[Any]) -> list[tuple[str, str]]:
    return [(record["event"], record.get("row", "")) for record in records]


def test_what_visitors_notice_is_written_and_its_end() -> None:
    with admin_of(connect_hold_s=0) as admin, capture_logs() as records:
        logged(admin)
        proxy = admin.proxy
        proxy.auto_accept = False
        client = proxy.client(get())
        proxy.refuse()
        proxy.advance(15.0)
        proxy.auto_accept = True
        client.sends(get())
        proxy.upstream.sends(reply())
        proxy.advance(60.0)
    assert events(records) == [
        ("situation", "nothing there"),
        ("situation", "well"),
        ("incident", ""),
    ]
    began, better, over = records
    assert (began["log_level"], better["log_level"]) == ("warning", "info")
    assert began["now"] == "Nothing answers at 127.0.0.1:8080: refused."
    assert began["you"].startswith("Start the application")
    assert over["words"].startswith("Over after 1")
    assert "0 answers saved by RETTER, 1 got an error. Nothing answers at" in over["words"]


def test_visitors_that_come_and_go_are_no_event() -> None:
    with admin_of() as admin, capture_logs() as records:
        logged(admin)
        client = admin.proxy.client()
        for _ in range(3):
            client.sends(get())
            admin.proxy.upstream.sends(reply())
            admin.proxy.advance(30.0)
    assert records == []


def test_a_situation_that_flaps_does_not_fill_the_log() -> None:
    with admin_of() as admin, capture_logs() as records:
        log = logged(admin)
        watch = admin.admin.watch
        proxy = admin.proxy
        for second in range(60):
            watch.history._services.counters.access_lines_dropped += second % 20 == 0
            proxy.advance(1.0)
        log.on_second(proxy.loop.now)
    assert 2 <= len(records) <= 60 / AGAIN_S
    assert {record["event"] for record in records} == {"situation"}


def test_a_change_of_the_circuit_says_what_is_the_case() -> None:
    with admin_of() as admin, capture_logs() as records:
        log = logged(admin)
        admin.post("/api/circuit", "mode=open")
        told = log.sentences(admin.proxy.loop.now)
        admin.proxy.advance(2.0)
    assert told["situation"] == "held open"
    assert told["now"].startswith("An operator holds the circuit open, for 10 min more")
    assert records == [], "the line of the change has said it"

"""One line for a minute of trouble, and none for a good one."""

from typing import Any

import pytest

from retter.process.minute_summary import Digest
from tests.support.harness import FakeProxy, get, reply


class Log:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def warning(self, event: str, **record: Any) -> None:
        assert event == "digest"
        self.records.append(record)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr("retter.process.minute_summary.log", log)
    return log


def watched(**settings: Any) -> FakeProxy:
    proxy = FakeProxy(**settings)
    proxy.proxy.ticker.on_second.append(Digest(proxy.services).on_second)
    return proxy


def ask(proxy: FakeProxy, answer: bytes, path: str = "/") -> None:
    proxy.client(get(path))
    proxy.upstream.sends(answer)


def test_a_good_minute_has_no_line(log: Log) -> None:
    proxy = watched()
    for _ in range(3):
        for _ in range(5):
            ask(proxy, reply())
        ask(proxy, reply(status="404 Not Found"), "/missing")
        proxy.advance(61)
    assert log.records == []


def test_a_minute_of_trouble(log: Log) -> None:
    proxy = watched(failure_volume=1000)
    for _ in range(100):
        ask(proxy, reply())
    for _ in range(3):
        ask(proxy, reply(b"x", status="500 Oh"))  # the stored page hides it
    ask(proxy, reply(b"x", status="500 Oh"), "/other")  # there is none
    proxy.client(b"POST /reset HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    proxy.upstream.resets()
    assert log.records == []
    proxy.advance(61)
    (record,) = log.records
    told = [record[name] for name in ("requests", "fresh", "stored", "refused", "failed")]
    assert told == [105, 100, 3, 0, 2]
    assert record["reasons"] == {"upstream-status": 3, "upstream-reset": 1}
    assert (record["seconds"], record["in_flight"]) == (60, 0)
    assert record["p99_ms"] is not None
    assert (record["spared"], record["gave_up"]) == (3, 0)
    proxy.advance(61)  # and it is over
    if proxy.services.breaker.circuit.state.value == "CLOSED":
        assert len(log.records) == 1


def test_a_circuit_held_open_is_trouble_as_well(log: Log) -> None:
    proxy = watched(failure_volume=2)
    for number in range(10):
        ask(proxy, reply(b"", status="500 Oh"), f"/{number}")
    assert proxy.services.breaker.circuit.state.value == "OPEN"
    proxy.advance(181)
    assert [record["state"] for record in log.records] == ["OPEN"] * 3
    assert log.records[-1]["requests"] == 0

"""Errors that reach the event loop: out of memory, out of descriptors, faults of our own."""

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from retter.process import loop_errors
from retter.process.loop_errors import FAULTS_LOGGED_MAX, MEMORY_ERRORS_MAX, LoopFaults
from retter.store.store import KEPT_BYTES_MIN
from tests.support.compiled import replaces_parts
from tests.support.harness import FakeProxy, get, reply

OLD_BUDGET = 64 * 1024 * 1024


class Ended(BaseException):
    """The process has ended."""


class Loop:
    """A FakeProxy with a handler, and what it has logged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proxy = FakeProxy(connect_hold_s=0)
        self.proxy.loop.takes_reports = True
        self.faults = LoopFaults(self.proxy.services, self.proxy.proxy.ticker)
        self.exit_code: int | None = None
        monkeypatch.setattr(os, "_exit", self._exit)

    def _exit(self, code: int) -> None:
        self.exit_code = code
        raise Ended

    def reports(self, error: BaseException | None, **context: Any) -> None:
        loop: Any = self.proxy.loop
        self.faults(loop, {"message": "seen", "exception": error, **context})

    def logs(self, act: Callable[[], None]) -> list[dict[str, Any]]:
        with capture_logs() as records:
            act()
        return [dict(record) for record in records]

    def second(self) -> None:
        self.proxy.loop.now += 1
        self.faults.on_second(self.proxy.loop.now)

    def store(self, pages: int, size: int = 20_000) -> None:
        client = self.proxy.client()
        for number in range(pages):
            client.sends(get(f"/{number}"))
            self.proxy.upstream.sends(reply(bytes([number % 256]) * (size + number)))


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return Loop(monkeypatch)


# Memory


def test_out_of_memory_empties_the_store_and_keeps_it_smaller(loop: Loop) -> None:
    loop.store(100)
    services = loop.proxy.services
    before = services.store.stats()
    assert before["entries"] == 100
    (record,) = loop.logs(lambda: loop.reports(MemoryError()))
    after = services.store.stats()
    assert (after["entries"], after["bytes_used"]) == (0, 0)
    assert after["bytes_max"] == before["bytes_used"] * 3 // 4
    assert not services.store.shelves._cleared, "freed at once, not with the ticks"
    assert (record["event"], record["errors"], record["dropped"]) == ("out-of-memory", 1, 100)
    assert record["store_memory"] == after["bytes_max"]
    assert services.counters.memory_errors == 1
    loop.store(1)
    assert services.store.stats()["entries"] == 1, "it goes on"


def test_a_reload_gives_the_store_its_memory_back(loop: Loop) -> None:
    loop.store(100)
    loop.reports(MemoryError())
    services = loop.proxy.services
    loop.proxy.proxy.apply(services.settings)
    assert services.store.stats()["bytes_max"] == OLD_BUDGET


def test_what_others_have_used_up_does_not_take_the_store_away(loop: Loop) -> None:
    for _ in range(MEMORY_ERRORS_MAX):
        loop.reports(MemoryError())
    assert loop.proxy.services.store.stats()["bytes_max"] == OLD_BUDGET
    loop.store(100)
    for _ in range(5):
        loop.second()
        loop.reports(MemoryError())
        loop.store(100)
    assert loop.proxy.services.store.stats()["bytes_max"] >= KEPT_BYTES_MIN


def test_one_line_a_second_however_often_memory_runs_out(loop: Loop) -> None:
    def act() -> None:
        for _ in range(3):
            for _ in range(MEMORY_ERRORS_MAX - 1):
                loop.reports(MemoryError())
            loop.second()

    records = loop.logs(act)
    assert {record["event"] for record in records} == {"out-of-memory"}
    assert len(records) <= 6
    assert sum(record["errors"] for record in records) == 3 * (MEMORY_ERRORS_MAX - 1)


def test_a_loop_that_does_nothing_but_fail_ends_the_process(loop: Loop) -> None:
    for _ in range(MEMORY_ERRORS_MAX):
        loop.reports(MemoryError())
    records: list[dict[str, Any]] = []
    with pytest.raises(Ended):
        records += loop.logs(lambda: loop.reports(MemoryError()))
    assert loop.exit_code == 1


def test_the_last_words_need_no_memory(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    its, ours = os.pipe()
    write = os.write
    monkeypatch.setattr(os, "write", lambda _, data: write(ours, data))
    monkeypatch.setattr(loop_errors.log, "error", fails, raising=False)
    monkeypatch.setattr(loop_errors, "flush", fails)
    monkeypatch.setattr(loop_errors, "free_memory", fails)
    with pytest.raises(Ended):
        loop.reports(MemoryError())
    assert loop.exit_code == 1
    assert os.read(its, 1000) == loop_errors._LAST_WORDS
    os.close(its)
    os.close(ours)


def test_a_reserve_is_given_up_and_kept_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loop.faults._reserve is not None
    loop.reports(MemoryError())
    assert loop.faults._reserve is None
    loop.second()
    assert loop.faults._reserve is not None
    loop.reports(MemoryError())
    monkeypatch.setattr(loop_errors, "RESERVE_BYTES", 1 << 60)
    loop.second()
    assert loop.faults._reserve is None, "tried again later"


def test_a_clock_that_had_no_memory_for_its_next_tick_is_started_again(loop: Loop) -> None:
    class Timer:
        cancelled = False

        def __init__(self, when: float) -> None:
            self._when = when

        def when(self) -> float:
            return self._when

        def cancel(self) -> None:
            self.cancelled = True

    ticker, now = loop.proxy.proxy.ticker, loop.proxy.loop.now
    started: list[float] = []
    real: Any = loop.proxy.loop

    def call_later(delay: float, _: object) -> Timer:
        started.append(delay)
        return Timer(now + delay)

    real.call_later = call_later
    ticker._timer = runs = Timer(now + 0.01)  # type: ignore[assignment]
    loop.reports(MemoryError())
    assert not started and not runs.cancelled
    ticker._timer = stands = Timer(now - 0.01)  # type: ignore[assignment]
    loop.reports(MemoryError())
    assert len(started) == 1 and stands.cancelled
    ticker._timer = None  # closed
    loop.reports(MemoryError())
    assert len(started) == 1


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


WHOLE = reply(b"x" * 20)
IN_PIECES = [b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", b"x" * 20]


@replaces_parts
@pytest.mark.parametrize("pieces", [[WHOLE], IN_PIECES], ids=["whole", "in pieces"])
def test_an_answer_that_finds_no_memory_in_the_store_is_given_all_the_same(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    loop.store(100)
    monkeypatch.setattr("retter.store.accounting.Shelves.acquire_body", no_memory)
    client = loop.proxy.client(get("/a"))
    for piece in pieces:
        loop.proxy.upstream.sends(piece)
    assert client.received().endswith(b"x" * 20)
    monkeypatch.undo()
    client.sends(get("/a"))
    loop.proxy.upstream.sends(WHOLE)
    assert client.received().endswith(b"x" * 20), "the connection goes on"
    services = loop.proxy.services
    assert services.counters.memory_errors == 1
    assert not services.exchanges and services.breaker.snapshot(loop.proxy.loop.now).in_flight == 0


@pytest.mark.parametrize(("writes", "together"), [(0, False), (0, True), (1, False)])
def test_a_fault_in_writing_leaves_nobody_waiting(
    loop: Loop, writes: int, *, together: bool
) -> None:
    client = loop.proxy.client(get("/a"))
    left = [None] * writes
    write = client.transport.write

    def fails(data: Any) -> None:
        if not left:
            raise MemoryError
        left.pop()
        write(data)

    client.transport.write = fails  # type: ignore[method-assign]
    upstream = loop.proxy.upstream
    upstream.sends(IN_PIECES[0] + b"x" * 10 if writes else b"")
    if together:  # a whole answer is written with those of others
        loop.proxy.services.write_batch.try_step()
        loop.proxy.loop.takes_reports = True
        upstream.sends(WHOLE)
        assert [type(one) for one in loop.proxy.loop.reported] == [MemoryError]
        client.resets()
    else:
        with pytest.raises(MemoryError):
            upstream.sends(b"x" * 10 if writes else WHOLE)
        upstream.resets()  # what the loop does then
    assert client.closed
    assert not loop.proxy.services.exchanges
    assert loop.proxy.services.breaker.snapshot(loop.proxy.loop.now).in_flight == 0


@replaces_parts
@pytest.mark.parametrize("error", [MemoryError, ZeroDivisionError])
@pytest.mark.parametrize(
    ("where", "pieces", "begun"),
    [
        ("retter.proxy.responses.AnswerWriter.forwarded_end", [WHOLE], True),
        ("retter.proxy.responses.AnswerWriter.forwarded_end", IN_PIECES, True),
        ("retter.proxy.relay.ResponseRelay._send", IN_PIECES, True),
        ("retter.breaker.CircuitBreaker.first_byte", IN_PIECES, True),
        ("retter.proxy.delivery.learn", IN_PIECES, False),
        ("retter.proxy.keeping.Keeper.keep", IN_PIECES, True),
    ],
)
def test_a_fault_in_the_middle_leaves_nobody_waiting(
    loop: Loop,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    where: str,
    pieces: list[bytes],
    begun: bool,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    client = loop.proxy.client(get("/a"))
    upstream = loop.proxy.upstream
    monkeypatch.setattr(where, fails)
    raised = False
    for piece in pieces:
        try:
            upstream.sends(piece)
        except error:
            raised = True
            monkeypatch.undo()
            upstream.resets()  # what the loop does then
            break
    monkeypatch.undo()
    assert raised or error is MemoryError
    answer = client.received()
    if raised and not begun:
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"detail=internal-error" in answer
    else:
        assert client.closed or answer.endswith(b"x" * 20)
    services = loop.proxy.services
    assert not services.exchanges
    assert services.breaker.snapshot(loop.proxy.loop.now).in_flight == 0
    other = loop.proxy.client(get("/b"))
    loop.proxy.upstream.sends(WHOLE)
    assert other.received().endswith(b"x" * 20)


@replaces_parts
@pytest.mark.parametrize("idle", [True, False])
def test_a_fault_in_sending_leaves_nobody_waiting(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    proxy = loop.proxy
    if idle:
        proxy.client(get("/a"))
        proxy.upstream.sends(WHOLE)
    monkeypatch.setattr("retter.proxy.request_body.RequestBody.take", fails)
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    assert client.received().startswith(b"HTTP/1.1 500 ")
    assert [type(error) for error in proxy.loop.reported] == [MemoryError]
    assert proxy.upstream.closed, "nobody knows what went over it"
    assert proxy.services.breaker.snapshot(proxy.loop.now).in_flight == 0
    proxy.assert_at_rest()


# Faults of our own


def test_a_fault_is_told_with_all_that_is_known(loop: Loop) -> None:
    error = ZeroDivisionError("what")
    (record,) = loop.logs(lambda: loop.reports(error, protocol="p" * 10_000, handle=7))
    assert (record["event"], record["message"], record["handle"]) == ("fault", "seen", "7")
    assert len(record["protocol"]) == 500
    assert record["exc_info"] is error
    assert loop.proxy.services.counters.faults == 1


def test_repeated_faults_are_counted_not_logged(loop: Loop) -> None:
    def act() -> None:
        for _ in range(1000):
            loop.reports(KeyError())
        loop.second()
        loop.second()
        loop.reports(KeyError())

    records = loop.logs(act)
    assert [record["event"] for record in records] == (
        ["fault"] * FAULTS_LOGGED_MAX + ["faults", "fault"]
    )
    assert records[FAULTS_LOGGED_MAX]["not_logged"] == 1000 - FAULTS_LOGGED_MAX
    assert loop.proxy.services.counters.faults == 1001


def test_a_report_without_an_exception(loop: Loop) -> None:
    (record,) = loop.logs(lambda: loop.reports(None))
    assert record["message"] == "seen"


# The end of all


def test_a_loop_that_ends_for_want_of_memory(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retter.process import program

    async def serve(*_: object) -> int:
        await asyncio.sleep(0)
        raise MemoryError

    monkeypatch.setattr(program, "_serve", serve)
    with pytest.raises(Ended), capture_logs() as records:
        program.run(loop.proxy.services.settings)
    assert loop.exit_code == 1
    assert [record["event"] for record in records if record["log_level"] == "error"] == [
        "out-of-memory"
    ]


def test_a_side_that_is_closed_too_late_is_no_fault(loop: Loop) -> None:
    """asyncio's loop does it in a callback; the connection is told of its end as well."""
    lost = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
    selector_events: Any = asyncio.selector_events
    transport = object.__new__(selector_events._SelectorSocketTransport)
    made = asyncio.new_event_loop()
    try:
        # Python 3.12 and later choose between two of these for each transport.
        write = getattr(transport, "_write_ready", None) or transport._write_send
        writing = asyncio.Handle(write, (), made)
        other = asyncio.Handle(made.stop, (), made)
    finally:
        made.close()
    assert loop.logs(lambda: loop.reports(lost, handle=writing)) == []
    (record,) = loop.logs(lambda: loop.reports(lost, handle=other))
    assert record["event"] == "fault"

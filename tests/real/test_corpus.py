"""The corpus over real sockets, on both event loops, with the memos of heads and without.

One RETTER and one scripted application live in the test's own loop, so that what the application
sees, what the client gets and what RETTER counts can be compared after every row. Rows go one after
the other; only those that wait for a time limit run side by side.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

import retter
from tests.corpus import fidelity
from tests.corpus.misbehaviours import CUT, MISBEHAVIOURS, Misbehaviour, Then
from tests.corpus.reading import (
    OUR_ANSWER_FIELDS,
    OURS,
    body_at_client,
    rejoined,
    sorted_last,
    unchunked,
    without_informational,
)
from tests.corpus.requests import CUT_OFF, REFUSED, TAKEN, CutOff, Refused, Taken
from tests.real.inside import port_of, proxy_for, run
from tests.real.processes import DEADLINE_S
from tests.support.harness import body_of, field, get, reply, status_of
from tests.support.memos import set_memos
from tests.support.tracing import untraced

# No row may lean on what another has left in the store, nor be shed for what it did.
# Bodies are passed on as they come: what is kept until it is whole has nothing to be cut off.
APART: dict[str, Any] = {
    "store_memory_bytes": 0, "store_object_bytes_max": 0, "circuit": "closed",
    "buffer_memory_bytes": 0,
}  # fmt: skip

# For the rows that wait: how long for the first byte, and how long for more of a body.
WAIT_S = 0.5

# After so many rounds of the loop what was written to the loopback has been read.
ROUNDS = 3
PATIENCE_ROUNDS = 2000


async def rounds(count: int = ROUNDS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], what: str) -> None:
    """Spin, for what happens in this loop happens soon; then wait as long as it takes."""
    for _ in range(PATIENCE_ROUNDS):
        if condition():
            return
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"in vain: {what}") from None


class Side(asyncio.Protocol):
    """A far end: the client or the application, which remember all that they get."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.received = b""
        self.ended = False  # no more will come
        self.clean = False  # and its end was no reset
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.ended = self.clean = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self._lost = True

    def sends(self, data: bytes) -> None:
        if not self._lost:
            self.transport.write(data)

    async def sends_all(self, pieces: list[bytes]) -> None:
        """Send so that each piece is read on its own."""
        for piece in pieces:
            self.sends(piece)
            await rounds()

    def takes(self) -> bytes:
        received, self.received = self.received, b""
        return received

    def closes(self) -> None:
        self.transport.close()

    def resets(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Stage:
    """RETTER, the application behind it, and clients as wanted."""

    def __init__(self) -> None:
        self.connections: list[Side] = []
        self.by_row: dict[int, Side] = {}
        self.port = 0
        self.proxy: retter.RunningProxy
        self._clients: list[Side] = []

    def make_application(self) -> Side:
        self.connections.append(Side())
        return self.connections[-1]

    async def client(self, sends: bytes = b"") -> Side:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Side, "127.0.0.1", self.port)
        self._clients.append(client)
        if sends:
            client.sends(sends)
        return client

    def reached(self) -> bytes:
        """Everything that the application has got since the row began, but for our fields."""
        return OURS.sub(b"", b"".join([side.received for side in self.connections]))

    async def asked(self, request: bytes) -> Side:
        """Wait until the application has this request, and nothing else."""
        with contextlib.suppress(AssertionError):
            await until(lambda: self._has(request), "the request")
        assert comparable(self.reached()) == comparable(request)
        return next(side for side in self.connections if side.received)

    def _has(self, request: bytes) -> bool:
        reached = self.reached()
        # Chunks may come one by one; the end of a body tells that all of it is there.
        return len(reached) >= len(request) or comparable(reached) == comparable(request)

    async def next_request_works(self, client: Side | None = None) -> None:
        """Another request is answered, on this connection or a new one; then the row is over."""
        for side in self.connections:
            side.takes()
        if client is None:
            client = await self.client()
        client.takes()
        client.sends(get("/next"))
        upstream = await self.asked(get("/next"))
        # The next row is to begin without a connection to the application.
        upstream.sends(reply(b"next", headers={"Connection": "close"}))
        await until(lambda: client.received.endswith(b"\r\n\r\nnext"), "the next answer")
        assert status_of(client.received) == 200
        await self.clear()

    async def clear(self) -> None:
        for side in [*self._clients, *self.connections]:
            side.transport.abort()
        self._clients.clear()
        stats = self.proxy.stats
        await until(lambda: not stats()["connections"]["open"], "no client is left")
        await until(lambda: not stats()["upstream"]["open"], "nor a connection")
        assert stats()["exchanges"] == stats()["streams"] == 0
        await until(lambda: all(side.ended for side in self.connections), "all ended")
        self.connections.clear()


def comparable(request: bytes) -> list[bytes]:
    """Body and lines; what frames the connection is written anew, behind the other fields."""
    with contextlib.suppress(ValueError, IndexError):
        request = _rejoined(request)
    head, _, body = request.partition(b"\r\n\r\n")
    anew = (b"Transfer-Encoding: ", b"TE: ", b"Connection: ", b"Upgrade: ")
    return [*sorted_last(head + b"\r\n", anew), body]


def _rejoined(request: bytes) -> bytes:
    return rejoined(request) if b"\r\n0\r\n" in request else request


@contextlib.asynccontextmanager
async def on_stage(memos: str, **settings: Any) -> Any:
    stage = Stage()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(stage.make_application, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with proxy_for(f"127.0.0.1:{port}", **APART, **settings) as proxy:
        set_memos(proxy._proxy, memos)
        stage.proxy, stage.port = proxy, port_of(proxy)
        yield stage
        assert proxy.stats()["retries"] == 0
    server.close()
    await server.wait_closed()


def in_three(data: bytes) -> list[bytes]:
    third = len(data) // 3 + 1
    return [data[:third], data[third : 2 * third], data[2 * third :]]


def carried_out(loop: str, memos: str, rows: list[Any], carry_out: Any) -> None:
    """Carry rows out one after the other."""

    async def main() -> None:
        async with on_stage(memos) as stage:
            for row in rows:
                try:
                    await carry_out(stage, row)
                except BaseException as error:
                    error.add_note(f"in the row {row.name!r}")
                    raise

    run(main(), loop)


pytestmark = [pytest.mark.parametrize("memos", ["eager", "off"]), untraced]


async def refused(stage: Stage, row: Refused, pieces: list[bytes]) -> None:
    client = await stage.client()
    await client.sends_all(pieces)
    await until(lambda: client.ended, "a close")
    answer = client.received
    assert status_of(answer) == row.status, answer
    assert field(answer, "connection") == "close"
    assert len(body_of(answer)) == int(field(answer, "content-length") or 0), "one answer"
    assert client.clean
    assert not stage.connections, "nothing reached the application"
    await stage.next_request_works()


def test_refused(each_loop_name: str, memos: str) -> None:
    async def carry_out(stage: Stage, row: Refused) -> None:
        await refused(stage, row, [row.sends])
        await refused(stage, row, in_three(row.sends))

    carried_out(each_loop_name, memos, REFUSED, carry_out)


async def cut_off(stage: Stage, row: CutOff, head: bytes, pieces: list[bytes]) -> None:
    client = await stage.client(head)
    upstream = await stage.asked(head)
    await client.sends_all(pieces)
    if row.ends:
        client.transport.write_eof()
    await until(lambda: client.ended, "a close")
    if row.status is None:
        assert client.received == b""
    else:
        assert status_of(client.received) == row.status
        assert field(client.received, "connection") == "close"
    await until(lambda: upstream.ended, "a close")
    reached = stage.reached()
    chunked = b"\r\nTransfer-Encoding: chunked\r\n" in reached
    passed = b"".join(unchunked(body_of(reached))) if chunked else body_of(reached)
    assert row.good.startswith(passed)
    await stage.clear()
    await stage.next_request_works()


def test_cut_off(each_loop_name: str, memos: str) -> None:
    async def carry_out(stage: Stage, row: CutOff) -> None:
        head, end, body = row.sends.partition(b"\r\n\r\n")
        await cut_off(stage, row, head + end, [body])
        await cut_off(stage, row, head + end, in_three(body))

    carried_out(each_loop_name, memos, CUT_OFF, carry_out)


async def taken(stage: Stage, row: Taken, pieces: list[bytes]) -> None:
    client = await stage.client()
    await client.sends_all(pieces)
    for expected in row.reached:
        upstream = await stage.asked(expected)
        upstream.takes()
        upstream.sends(reply(b"ok"))
    answers = row.answers or len(row.reached)
    await until(lambda: client.received.count(b"HTTP/1.1 ") == answers, "the answers")
    assert client.received.count(b"HTTP/1.1 200 OK\r\n") == len(row.reached)
    if row.closed:
        await until(lambda: client.ended, "a close")
    assert stage.reached() == b"", "not a byte more"
    assert len(stage.connections) == 1, "one after the other, on one connection"
    assert client.ended is row.closed
    if row.closed:
        await stage.clear()
    await stage.next_request_works(None if row.closed else client)


def test_taken(each_loop_name: str, memos: str) -> None:
    async def carry_out(stage: Stage, row: Taken) -> None:
        await taken(stage, row, [row.sends])
        await taken(stage, row, in_three(row.sends))

    carried_out(each_loop_name, memos, TAKEN, carry_out)


# -- the application's side -----------------------------------------------------------------------


def waits(row: Misbehaviour) -> bool:
    return row.then is Then.SILENCE or bool(row.pause_s)


def shows(row: Misbehaviour, received: bytes) -> bool:
    """Whether the client has got what there will be of a cut answer."""
    _, answer = without_informational(received)
    return b"\r\n\r\n" in answer and body_at_client(answer) == row.body


def complete(message: bytes, request: bytes) -> bool:
    """Whether an answer has come to its end, as far as its own framing tells."""
    _, answer = without_informational(message)
    if b"\r\n\r\n" not in answer:
        return False
    if request.startswith(b"HEAD") or status_of(answer) in (204, 304):
        return True
    if field(answer, "transfer-encoding") == "chunked":
        return answer.endswith(b"0\r\n\r\n")
    length = field(answer, "content-length")
    return length is not None and len(body_of(answer)) >= int(length)


def pause_s_of(row: Misbehaviour) -> float:
    """Return a pause within the time limit, or one that makes the whole clearly longer than it."""
    if row.outcome == 200:
        return 0.01
    return 3 * WAIT_S / len(row.sends)


async def misbehaves(upstream: Side, client: Side, row: Misbehaviour) -> None:
    for piece in row.sends:
        upstream.sends(piece)
        await rounds()
        if row.pause_s and row.outcome == CUT:
            await until(lambda: client.ended, "the time limit")
        elif row.pause_s:
            await asyncio.sleep(pause_s_of(row))
            if client.ended:
                return
    if row.then in (Then.CLOSE, Then.RESET):
        await rounds()
        if row.outcome == CUT:
            await until(lambda: shows(row, client.received), "what comes before the end")
        elif row.informational:
            await until(lambda: without_informational(client.received)[0], "a 1xx")
        if row.then is Then.RESET:
            upstream.resets()
        else:
            upstream.closes()


def judge(row: Misbehaviour, client: Side) -> None:
    informational, answer = without_informational(client.received)
    if row.informational and row.pause_s:
        assert 0 < informational < len(row.sends)
    else:
        assert informational == row.informational
    if row.outcome == CUT:
        assert status_of(answer) == 200
        assert not complete(answer, row.request), "a cut answer looks like one"
    else:
        assert status_of(answer) == row.outcome
        assert (field(answer, "connection") == "close") is row.client_closed
    if row.outcome < 500:
        assert body_at_client(answer) == row.body


async def misbehaviour(stage: Stage, row: Misbehaviour) -> None:
    client = await stage.client(row.request)
    upstream = await stage.asked(row.request)
    await misbehaves(upstream, client, row)
    if row.outcome == CUT or row.client_closed:
        await until(lambda: client.ended, "a close")
    else:
        await until(lambda: complete(client.received, row.request), "an answer")
        assert not client.ended
    judge(row, client)
    if row.late:
        upstream.sends(row.late)
    if not row.reused:
        await until(lambda: upstream.ended, "it is not used again")
    await stage.next_request_works(None if client.ended else client)


def test_misbehaviours(each_loop_name: str, memos: str) -> None:
    async def carry_out(stage: Stage, row: Misbehaviour) -> None:
        await misbehaviour(stage, row)

    carried_out(each_loop_name, memos, [row for row in MISBEHAVIOURS if not waits(row)], carry_out)


def test_misbehaviours_that_take_their_time(each_loop_name: str, memos: str) -> None:
    """Side by side, each with a RETTER of its own."""

    async def one(row: Misbehaviour) -> None:
        # Each row has the one limit that is to end it: what else it does may take its time.
        limits = {
            "upstream_timeout_s": WAIT_S if row.outcome == 504 else 60.0,
            "upstream_body_timeout_s": WAIT_S if row.outcome == CUT else 60.0,
            "patience_closed_s": 60.0, "patience_max_s": 60.0, "connect_hold_s": 0.0,
        }  # fmt: skip
        async with on_stage(memos, **limits) as stage:
            await misbehaviour(stage, row)

    async def main() -> None:
        await asyncio.gather(*[one(row) for row in MISBEHAVIOURS if waits(row)])

    run(main(), each_loop_name)


# -- what passes unchanged ------------------------------------------------------------------------


async def request_passes(stage: Stage, row: fidelity.Request, pieces: list[bytes]) -> None:
    client = await stage.client()
    await client.sends_all(pieces)
    lines = row.lines if row.gets is None else row.gets
    line = row.line_gets or row.line
    upstream = await stage.asked(line + b"\r\nHost: a\r\n" + lines + b"\r\n" + row.body)
    upstream.sends(reply(b"" if row.line.startswith(b"HEAD") else b"ok"))
    await until(lambda: complete(client.received, row.line), "an answer")
    assert status_of(client.received) == 200
    await stage.clear()
    await stage.next_request_works()


def test_requests_pass_unchanged(each_loop_name: str, memos: str) -> None:
    async def carry_out(stage: Stage, row: fidelity.Request) -> None:
        sends = row.line + b"\r\nHost: a\r\n" + row.lines + b"\r\n" + row.body
        await request_passes(stage, row, [sends])
        await request_passes(stage, row, in_three(sends))

    carried_out(each_loop_name, memos, fidelity.REQUESTS, carry_out)


def as_seen(answer: bytes) -> bytes:
    """An answer without our fields, its chunks joined."""
    answer = OUR_ANSWER_FIELDS.sub(b"", answer)
    with contextlib.suppress(ValueError, IndexError):
        return _rejoined(answer)
    return answer


async def answer_passes(stage: Stage, row: fidelity.Answer, pieces: list[bytes]) -> None:
    client = await stage.client(row.request)
    await until(lambda: stage.reached().endswith(b"\r\n\r\n"), "the request")
    upstream = stage.connections[0]
    await upstream.sends_all(pieces)
    if row.ends:
        upstream.closes()
    expected = row.sends if row.gets is None else row.gets
    with contextlib.suppress(AssertionError):
        await until(lambda: as_seen(client.received) == expected, "the answer")
    assert as_seen(client.received) == expected
    if row.closed:
        await until(lambda: client.ended, "a close")
    assert client.ended is row.closed
    await stage.clear()
    await stage.next_request_works()


def test_answers_pass_unchanged(each_loop_name: str, memos: str) -> None:
    async def carry_out(stage: Stage, row: fidelity.Answer) -> None:
        await answer_passes(stage, row, [row.sends])
        await answer_passes(stage, row, in_three(row.sends))

    carried_out(each_loop_name, memos, fidelity.ANSWERS, carry_out)


@pytest.mark.parametrize("then", [Then.CLOSE, Then.RESET])
@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_a_cut_answer_looks_like_one_in_http10_too(
    each_loop_name: str, memos: str, framing: bytes, then: Then
) -> None:
    """Without chunks a client takes a plain close for the end (RFC 9112 section 8)."""

    async def main() -> None:
        async with on_stage(memos) as stage:
            client = await stage.client(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            await until(stage.reached, "the request")
            upstream = stage.connections[0]
            upstream.sends(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello")
            await until(lambda: client.received.endswith(b"hello"), "a beginning")
            (upstream.closes if then is Then.CLOSE else upstream.resets)()
            await until(lambda: client.ended, "a close")
            assert not client.clean or framing.startswith(b"Content-Length")
            await stage.clear()
            await stage.next_request_works()

    run(main(), each_loop_name)

"""Many messages of one step of the event loop are written together, in order, and none is lost."""

from typing import Any

import pytest

from retter.breaker import Mode
from retter.net.write_batch import FULL_MIN, MESSAGES_MAX, WriteBatch
from retter.proxy.ticker import TICK_S
from tests.support.harness import FakeLoop, FakePeer, FakeProxy, body_of, get, reply, status_of

CLOSE = {"Connection": "close"}
POST = b"POST /b HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nx=y"
PIECE = b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 9\r\n\r\nfirst"


class Step(FakeProxy):
    """A proxy whose messages wait until the test ends the step; /a is stored."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(messages_max=MESSAGES_MAX, **settings)
        client = self.client(get("/a"))
        self.upstream.sends(reply(b"stored"))
        assert body_of(client.received()) == b"stored"
        self.gathers()

    def gathers(self) -> None:
        """Let the messages of the present step wait."""
        self.services.write_batch.try_step()

    def ends(self) -> None:
        """Let the step end, and those of the next one wait again."""
        self.loop.next_round()
        self.gathers()

    def is_overwhelmed(self) -> None:
        """Answer GETs from the store."""
        self.services.breaker.circuit.set_mode(self.loop.now, Mode.OPEN)


def lines(sent: bytes) -> list[bytes]:
    """Return the request lines in what the application has got."""
    return [line for line in sent.split(b"\r\n") if line.startswith((b"GET ", b"POST "))]


def asked(proxy: FakeProxy) -> list[bytes]:
    return [line for peer in proxy.upstreams for line in lines(peer.written())]


def test_requests_and_answers_are_written_when_the_step_ends() -> None:
    step = Step()
    for client in [step.client(get("/warm")) for _ in range(3)]:
        client.ends()
    step.ends()
    for peer in step.upstreams:
        peer.sends(reply(b"well"))
    asked(step)
    clients = [step.client(get(f"/{number}")) for number in range(3)]
    assert not asked(step)
    step.ends()
    assert sorted(asked(step)) == [b"GET /%d HTTP/1.1" % number for number in range(3)]
    for peer in step.upstreams:
        peer.sends(reply(b"well"))
    assert not any(client.received() for client in clients)
    step.ends()
    assert all(body_of(client.received()) == b"well" for client in clients)


def test_so_many_messages_wait_and_no_more() -> None:
    step = Step()
    step.is_overwhelmed()
    clients = [step.client(get("/a")) for _ in range(MESSAGES_MAX)]
    assert all(body_of(client.received()) == b"stored" for client in clients)
    another = step.client(get("/a"))
    assert not another.received()
    step.ends()
    assert body_of(another.received()) == b"stored"


def test_an_answer_comes_before_the_end_of_its_connection() -> None:
    step = Step()
    step.is_overwhelmed()
    client = step.client(get("/a", headers=CLOSE))
    assert client.closed
    assert body_of(client.received()) == b"stored"


def test_a_client_that_ends_at_once_has_its_answer() -> None:
    step = Step()
    step.is_overwhelmed()
    client = step.client(get("/a"))
    client.ends()
    assert client.closed
    assert body_of(client.received()) == b"stored"


def test_a_connection_that_is_evicted_or_told_to_close_has_its_answer() -> None:
    for end in ("close", "abort"):
        step = Step()
        step.is_overwhelmed()
        client = step.client(get("/a"))
        getattr(client.protocol, end)()
        assert body_of(client.received()) == b"stored"


def test_answers_to_one_client_keep_their_order() -> None:
    step = Step()
    step.is_overwhelmed()
    client = step.client(get("/a") + get("/a", headers={"Range": "bytes=0-2"}) + get("/a"))
    step.ends()
    answers = client.received().split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"206", b"200"]


def test_what_is_streamed_comes_after_what_waits() -> None:
    step = Step()
    step.is_overwhelmed()
    client = step.client()
    client.protocol.data_received(get("/a"))
    step.services.breaker.circuit.set_mode(step.loop.now, Mode.CLOSED)
    client.sends(get("/b"))
    step.upstream.protocol.write_waiting()
    step.upstream.sends(PIECE)
    sent = client.received()
    assert sent.index(b"stored") < sent.index(b"first")
    step.upstream.sends(b"last")
    step.ends()
    assert client.received() == b"last"


def test_an_error_comes_after_what_waits() -> None:
    step = Step()
    step.is_overwhelmed()
    client = step.client()
    client.protocol.data_received(get("/a"))
    client.sends(b"nonsense\r\n\r\n")
    answers = client.received().split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"400"]


def test_a_form_is_written_at_once() -> None:
    """It may not be sent twice, and the connection was open a moment ago."""
    step = Step()
    asked(step)
    step.client(POST)
    assert asked(step) == [b"POST /b HTTP/1.1"]


def test_the_first_request_of_a_connection_is_written_at_once() -> None:
    """An application that is full may answer before it has read it."""
    step = Step()
    client = step.client(get("/b"))
    asked(step)
    another = step.client(get("/c"))
    assert asked(step) == [b"GET /c HTTP/1.1"]
    step.upstream.sends(reply(b"full", status="503 Busy"))
    step.ends()
    assert status_of(another.received()) == 503
    step.upstreams[0].sends(reply(b"well"))
    step.ends()
    assert body_of(client.received()) == b"well"


@pytest.mark.parametrize("late", [b"late", reply(b"forged"), b"HTTP/1.1 204 No\r\n\r\n"])
def test_bytes_that_come_before_the_request_is_written_are_no_answer_to_it(late: bytes) -> None:
    step = Step()
    asked(step)
    client = step.client(get("/b"))
    step.upstream.sends(late)
    step.ends()
    assert len(step.upstreams) == 2
    assert asked(step) == [b"GET /b HTTP/1.1"]
    step.upstream.sends(reply(b"genuine"))
    step.ends()
    assert body_of(client.received()) == b"genuine"
    step.assert_at_rest()


@pytest.mark.parametrize("end", [FakePeer.ends, FakePeer.resets])
def test_a_request_that_was_not_written_goes_to_another_connection(end: Any) -> None:
    step = Step()
    asked(step)
    client = step.client(get("/b"))
    end(step.upstream)
    step.ends()
    assert asked(step) == [b"GET /b HTTP/1.1"]
    step.upstream.sends(reply(b"well"))
    step.ends()
    assert body_of(client.received()) == b"well"
    step.assert_at_rest()


def test_what_waits_for_a_client_that_has_left_is_dropped() -> None:
    step = Step()
    step.is_overwhelmed()
    client, other = step.client(get("/a")), step.client(get("/a"))
    sent = step.services.counters.sent
    client.resets()
    step.ends()
    assert not client.received()
    answer = other.received()
    assert body_of(answer) == b"stored"
    assert step.services.counters.sent - sent >= len(answer)
    step.assert_at_rest()


def test_a_client_that_does_not_read_is_noticed_when_its_answer_is_written() -> None:
    step = Step()
    client = step.client(get("/b"))
    step.ends()
    client.blocks_at_next_write()
    step.upstream.sends(reply(b"well"))
    assert client.protocol.out.backlog is None
    step.ends()
    assert client.protocol.out.backlog is not None
    client.unblocks()
    client.sends(get("/c"))
    step.ends()
    step.upstream.sends(reply(b"again"))
    step.ends()
    assert client.received().endswith(b"again")
    step.assert_at_rest()


@pytest.mark.parametrize("pipelined", [True, False])
def test_a_client_that_does_not_read_begins_no_other_request(*, pipelined: bool) -> None:
    """Its memory is full: nobody would stop reading an answer whose connection is made later."""
    step = Step(buffer_answer_bytes=0)
    client = step.client(get("/b"))
    step.ends()
    client.blocks_at_next_write()
    if pipelined:
        client.sends(get("/c"))
    step.auto_accept = False
    step.upstream.sends(reply(b"well", headers=CLOSE))
    if not pipelined:
        client.sends(get("/c"))
    step.ends()
    assert client.protocol.out.backlog.full
    assert not step.dialled
    client.unblocks()
    assert step.dialled
    step.accept()
    step.upstream.sends(reply(b"again"))
    step.ends()
    answers = client.received()
    assert answers.index(b"well") < answers.index(b"again")
    step.assert_at_rest()


class Faulty:
    """A connection that cannot write."""

    def __init__(self) -> None:
        self.aborted = False

    def write_waiting(self) -> None:
        raise MemoryError

    def abort(self) -> None:
        self.aborted = True


def test_a_fault_of_one_connection_is_not_one_of_others() -> None:
    step = Step()
    step.loop.takes_reports = True
    step.is_overwhelmed()
    faulty = Faulty()
    step.services.write_batch.add(faulty)
    client = step.client(get("/a"))
    step.ends()
    assert faulty.aborted
    assert [type(error) for error in step.loop.reported] == [MemoryError]
    assert status_of(client.received()) == 200


def fails(_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("end", ["its last answer", "eviction", "time", "its own end", "drain"])
def test_a_fault_in_writing_what_waits_keeps_no_connection_open(end: str) -> None:
    step = Step()
    step.loop.takes_reports = True
    step.is_overwhelmed()
    client = step.client()
    transport: Any = client.transport
    transport.write = fails
    client.protocol.data_received(get("/a", headers=CLOSE if end == "its last answer" else None))
    if end == "eviction":
        client.protocol.disconnect(step.loop.now)
    elif end == "time":
        client.protocol.on_deadline(step.loop.now)
    elif end == "its own end":
        client.protocol.eof_received()
    elif end == "drain":
        client.protocol.end()
    assert client.transport.aborted
    assert [type(error) for error in step.loop.reported] == [MemoryError]
    step.settle()
    assert not step.services.clients.connections - {step.clients[0].protocol}
    step.assert_at_rest()


def test_the_next_message_waits_for_a_step_if_there_was_no_memory_to_await_its_end() -> None:
    loop: Any = FakeLoop()
    write_batch = WriteBatch(loop, 3)
    call_soon, loop.call_soon = loop.call_soon, fails
    written: list[Faulty] = []

    class Writer(Faulty):
        def write_waiting(self) -> None:
            written.append(self)

    with pytest.raises(MemoryError):
        write_batch.add(Writer())
    loop.call_soon = call_soon
    write_batch.add(Writer())
    loop.next_round()
    assert len(written) == 2


def test_the_end_of_a_step_is_awaited_once() -> None:
    loop: Any = FakeLoop()
    write_batch = WriteBatch(loop, 3)
    written: list[int] = []

    class Writer(Faulty):
        def write_waiting(self) -> None:
            written.append(len(loop.soon))

    for _ in range(7):
        write_batch.add(Writer())
    assert written == [1] * 6
    loop.next_round()
    assert written == [1] * 6 + [0]
    write_batch.add(Writer())
    assert len(loop.soon) == 1


def test_messages_wait_only_while_there_are_many() -> None:
    """With few, each side would wait for the other."""
    step = Step()
    step.is_overwhelmed()
    batch = step.services.write_batch
    batch.gathers = False
    first = step.client(get("/a"))
    assert body_of(first.received()) == b"stored"
    step.advance(TICK_S)  # one step is tried
    second = step.client(get("/a"))
    assert not second.received()
    step.loop.next_round()
    assert body_of(second.received()) == b"stored"
    assert not batch.gathers, "one message is not many"
    assert body_of(step.client(get("/a")).received()) == b"stored", "none waits"
    step.advance(TICK_S)
    for rounds in range(3):
        clients = [step.client(get("/a")) for _ in range(FULL_MIN * MESSAGES_MAX + rounds)]
        step.loop.next_round()
        assert all(body_of(client.received()) == b"stored" for client in clients)
        assert batch.gathers
    for _ in range(FULL_MIN * MESSAGES_MAX - 1):
        last = step.client(get("/a"))
    step.loop.next_round()
    assert body_of(last.received()) == b"stored"
    assert not batch.gathers

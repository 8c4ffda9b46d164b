"""The connection to a server: answers in their order, and one error for everything else."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from redis._parsers import _RESP2Parser
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as ConnectionFault

from retter.far.rounds import CHANGES_READ_MAX
from retter.far.server import (
    LINES_MAX,
    TOO_LONG,
    TOO_MANY,
    Away,
    Command,
    CountedSocket,
    RedisServer,
)

READ_BYTES = 65_536
DEADLINE_S = 30.0
OCTETS = 1_000_000  # of the answers of a round trip


class Scripted:
    """A server on loopback that answers each piece that comes with the next text.

    Of an empty text it closes the connection, and of None it says nothing.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(ConnectionError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        while data := connection.recv(READ_BYTES):
            if b"SETINFO" in data:
                connection.sendall(b"+OK\r\n" * data.count(b"SETINFO"))
                continue
            self.received.append(data)
            answer = self._answers.pop(0) if self._answers else b""
            if answer is not None and not answer:
                return
            connection.sendall(answer or b"")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def scripts() -> Iterator[list[Scripted]]:
    made: list[Scripted] = []
    yield made
    for script in made:
        script.close()


def server_of(scripts: list[Scripted], *answers: bytes | None) -> RedisServer:
    scripts.append(Scripted(*answers))
    return RedisServer(f"redis://127.0.0.1:{scripts[-1].port}/0", 0.05, OCTETS)


def test_answers_come_in_the_order_of_the_commands(scripts: list[Scripted]) -> None:
    server = server_of(scripts, b"+PONG\r\n:3\r\n*2\r\n$1\r\na\r\n$-1\r\n")
    assert server.run([("PING",), ("ZCARD", b"x"), ("MGET", b"a", b"b")]) == [
        b"PONG",
        3,
        [b"a", None],
    ]
    assert server.run([]) == []
    server.close()
    server.close()
    assert len(scripts[0].received) == 1, "all of them in one piece"


def test_a_refused_command_closes_the_connection_and_the_next_one_opens_another(
    scripts: list[Scripted],
) -> None:
    server = server_of(scripts, b"+OK\r\n-READONLY it is a replica.\r\n", b"+PONG\r\n")
    with pytest.raises(Away, match="replica"):
        server.run([("SET", b"a", b"b"), ("ZADD", b"x", 1, b"y")])
    assert server.run([("PING",)]) == [b"PONG"]
    assert scripts[0].connections == 2
    server.close()


def test_the_words_of_a_server_cannot_steer_a_terminal(scripts: list[Scripted]) -> None:
    server = server_of(scripts, b"-ERR \x1b[2Jwith\x07 escapes\r\n")
    with pytest.raises(Away) as caught:
        server.run([("PING",)])
    assert str(caught.value).endswith("?[2Jwith? escapes")


@pytest.mark.parametrize(
    "answer",
    [b"", None, b"nonsense\r\n", b"*1\r\n" * 5000 + b":1\r\n"],
    ids=["closed", "silent", "odd", "nested"],
)
def test_a_server_that_does_not_answer_is_away(
    scripts: list[Scripted], answer: bytes | None
) -> None:
    server = server_of(scripts, answer)
    with pytest.raises(Away):
        server.run([("PING",)])


@pytest.mark.parametrize(
    "command",
    [
        ("TIME",),
        ("LRANGE", b"x", 0, -1),
        ("MGET", b"a", b"b"),
        ("XRANGE", b"x", "-", "+"),
        ("XREVRANGE", b"x", "+", "-"),
        ("XLEN", b"x"),
        ("ZCARD", b"x"),
        ("RPUSH", b"x", b"a"),
        ("EXPIRE", b"x", 1),
    ],
)
def test_a_program_that_answers_ok_to_everything_is_no_server(
    scripts: list[Scripted], command: Command
) -> None:
    server = server_of(scripts, b"+OK\r\n", b"+PONG\r\n")
    with pytest.raises(Away, match=f"the answer to {command[0]!s} is not understood"):
        server.run([command])
    assert server.run([("PING",)]) == [b"PONG"]
    assert scripts[0].connections == 2
    server.close()


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (("TIME",), b"*1\r\n$1\r\n1\r\n"),
        (("TIME",), b"*2\r\n$1\r\n1\r\n$1\r\nx\r\n"),
        (("TIME",), b"*2\r\n$1\r\n1\r\n$400\r\n%b\r\n" % (b"9" * 400)),
        (("ZCARD", b"x"), b":-1\r\n"),
        (("LRANGE", b"x", 0, -1), b"*1\r\n:1\r\n"),
        (("MGET", b"a", b"b"), b"*1\r\n$1\r\na\r\n"),
        (("MGET", b"a"), b"*1\r\n:1\r\n"),
        (("XRANGE", b"x", "-", "+"), b"*1\r\n$1\r\na\r\n"),
        (("XRANGE", b"x", "-", "+"), b"*1\r\n*1\r\n$1\r\na\r\n"),
        (("XRANGE", b"x", "-", "+"), b"*1\r\n*2\r\n:1\r\n*0\r\n"),
        (("XRANGE", b"x", "-", "+"), b"*1\r\n*2\r\n$3\r\n1-0\r\n$1\r\na\r\n"),
        (("XRANGE", b"x", "-", "+"), b"*1\r\n*2\r\n$3\r\n1-0\r\n*1\r\n$1\r\na\r\n"),
    ],
)
def test_an_answer_of_another_form_is_not_understood(
    scripts: list[Scripted], command: Command, answer: bytes
) -> None:
    server = server_of(scripts, answer)
    with pytest.raises(Away, match="is not understood"):
        server.run([command])


def test_a_server_that_is_not_there_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Away, match="refused"):
        RedisServer(f"redis://127.0.0.1:{port}", 0.05, OCTETS).run([("PING",)])


@pytest.mark.parametrize("octets", [0, OCTETS + READ_BYTES])
def test_a_value_that_is_too_large_is_not_read_whole(scripts: list[Scripted], octets: int) -> None:
    """It is of somebody else, and the server holds values of 512 MiB."""
    value = b"x" * octets
    server = server_of(
        scripts,
        b"$3\r\none\r\n" * 2,
        b"$500000000\r\n" + value if octets else b"$%d\r\n%b\r\n" % (OCTETS, b"x" * OCTETS),
        b"+PONG\r\n",
    )
    get: Command = ("GET", b"a")
    assert server.run([get, get]) == [b"one", b"one"]
    with pytest.raises(Away, match=TOO_LONG):
        server.run([get])
    assert server.run([("PING",)]) == [b"PONG"]
    assert scripts[0].connections == 2
    server.close()


def test_each_round_trip_may_bring_as_much(scripts: list[Scripted]) -> None:
    value = b"x" * (OCTETS // 2)
    server = server_of(scripts, *[b"$%d\r\n%b\r\n" % (len(value), value)] * 3)
    assert [server.run([("GET", b"a")]) for _ in range(3)] == [[value]] * 3
    assert scripts[0].connections == 1
    server.close()


class Pieces:
    """A socket that receives these octets, so many at a time."""

    def __init__(self, data: bytes, octets: int) -> None:
        self._pieces = [data[at : at + octets] for at in range(0, len(data), octets)]

    def recv(self, _: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def recv_into(self, buffer: bytearray) -> int:
        piece = self.recv(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def receive(data: bytes, octets: int, *, into: bool) -> None:
    """Receive all of it; what the buffer has held before must not count."""
    counted = CountedSocket(cast("Any", Pieces(data, octets)), len(data))
    buffer = bytearray(b"\r\n*999999\r\n" * 10)
    while counted.recv_into(buffer) if into else counted.recv(len(buffer)):
        pass


@pytest.mark.parametrize("into", [True, False])
@pytest.mark.parametrize("octets", [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 100])
@pytest.mark.parametrize("kind", [b"*", b">", b"~", b"%", b"|"])
def test_who_announces_more_parts_than_ours_have_is_left(
    kind: bytes, octets: int, into: bool
) -> None:
    """hiredis makes room for all of them at once, and no other thread runs meanwhile."""
    ours = b"*2\r\n$20\r\na*123456789012345678\r\n:99999999\r\n%b1024\r\n+x\r\n" % kind
    receive(ours, octets, into=into)
    for before in (b"", b":1\r\n", b"*1\r\n", b"$3\r\none\r\n"):
        with pytest.raises(ConnectionFault, match=TOO_MANY):
            receive(before + kind + b"1000000000\r\n", octets, into=into)


@pytest.mark.parametrize("octets", [1, 3, 65_536])
def test_parts_without_content_are_counted(octets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LINES_MAX > 8 * CHANGES_READ_MAX
    monkeypatch.setattr("retter.far.server.LINES_MAX", 100)
    receive(b"*99999\r\n" + b"*0\r\n" * 99, octets, into=True)
    with pytest.raises(ConnectionFault, match=TOO_MANY):
        receive(b"*99999\r\n" + b"*0\r\n" * 100, octets, into=True)


def test_a_thousand_million_parts_are_not_waited_for(scripts: list[Scripted]) -> None:
    server = server_of(scripts, b"*1000000000\r\n", b"+PONG\r\n")
    with pytest.raises(Away, match=TOO_MANY):
        server.run([("XRANGE", b"x", "-", "+")])
    assert server.run([("PING",)]) == [b"PONG"]
    assert scripts[0].connections == 2
    server.close()


@pytest.mark.parametrize("parser", [DefaultParser, _RESP2Parser])
def test_what_comes_before_the_first_command_is_counted_too(
    scripts: list[Scripted], monkeypatch: pytest.MonkeyPatch, parser: object
) -> None:
    class Endless(Scripted):
        def _talk(self, connection: socket.socket) -> None:
            connection.recv(READ_BYTES)
            connection.sendall(b"$500000000\r\n" + b"x" * (OCTETS + READ_BYTES))
            connection.recv(READ_BYTES)

    monkeypatch.setattr("retter.far.server.DefaultParser", parser)
    scripts.append(Endless())
    server = RedisServer(f"redis://127.0.0.1:{scripts[0].port}/0", DEADLINE_S, OCTETS)
    with pytest.raises(Away, match=TOO_LONG):
        server.run([("PING",)])


def test_a_place_that_others_have_taken_is_no_error(scripts: list[Scripted]) -> None:
    server = server_of(
        scripts,
        b"+OK\r\n-ERR The ID specified in XADD is equal or smaller than the target stream top item"
        b"\r\n:1\r\n",
        b"+PONG\r\n",
    )
    add = ("XADD", b"x", b"1-0", b"m", b"v")
    assert server.run([("SET", b"a", b"b"), add, ("ZCARD", b"x")]) == [b"OK", None, 1]
    assert server.run([("PING",)]) == [b"PONG"]
    assert scripts[0].connections == 1
    server.close()


def test_a_command_that_never_ends_can_be_broken_off_from_outside(scripts: list[Scripted]) -> None:
    """Each octet comes in time, and the answer never."""
    drops, ends = threading.Event(), threading.Event()

    class Dripping(Scripted):
        def _talk(self, connection: socket.socket) -> None:
            while data := connection.recv(READ_BYTES):
                if b"SETINFO" in data:
                    connection.sendall(b"+OK\r\n" * data.count(b"SETINFO"))
                    continue
                with contextlib.suppress(OSError):
                    connection.sendall(b"$100000000\r\n")
                    while not ends.wait(0.001):
                        connection.sendall(b"x")
                        drops.set()
                return

    scripts.append(Dripping())
    server = RedisServer(f"redis://127.0.0.1:{scripts[-1].port}/0", DEADLINE_S, OCTETS)
    faults: list[Away] = []

    def ask() -> None:
        try:
            server.run([("PING",)])
        except Away as error:
            faults.append(error)

    server.abort()  # there is no connection yet
    asks = threading.Thread(target=ask)
    asks.start()
    assert drops.wait(DEADLINE_S)
    server.abort()
    asks.join(DEADLINE_S)
    ends.set()
    assert len(faults) == 1 and not asks.is_alive()

"""The connection to Redis or Valkey: commands in, answers out, and one error for everything else.

redis-py is used for its URLs, TLS and authentication, without its asyncio part: a pipeline of
commands takes one task and several futures there, and a thread needs neither. It takes 7.3 MB of
memory, so this module is imported only with `--shared`.
"""

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from redis import ConnectionPool
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as ConnectionFault
from redis.exceptions import RedisError, ResponseError

Command = tuple[bytes | str | int, ...]

# A connection to a server in another data centre, with TLS.
CONNECT_S: Final = 1.0


TOO_LONG: Final = "its answers are longer than any of ours"
TOO_MANY: Final = "its answers have more parts than any of ours"

# An answer announces how many parts follow, and hiredis makes room for all at once, while it holds
# all threads: of a thousand million, in 14 octets, it took 8 GB and 15 s. Ours have 1,024 at most,
# and no value begins like this by chance: it is encrypted.
_MANY_PARTS: Final = re.compile(rb"\r\n[*>~%|][0-9]{6}")
_MANY_PARTS_OCTETS: Final = 9

# Each part has an end of a line at least, and takes up to 100 octets of memory if it is empty. The
# 1,024 changes of a round have 8,192 lines, and the 64 MiB of values another 1,024 by chance.
LINES_MAX: Final = 65_536

# Redis and Valkey say so of an XADD whose id is not later than all others.
NOT_LATER: Final = "equal or smaller than the target stream top item"


def _list_of(answer: Any, fits: Callable[[Any], bool]) -> bool:
    return answer.__class__ is list and all(map(fits, answer))


def _is_value(one: Any) -> bool:
    return isinstance(one, bytes)


def _is_value_or_none(one: Any) -> bool:
    return one is None or isinstance(one, bytes)


def _is_digits(one: Any) -> bool:
    # Seconds since the epoch will have 11 digits in the year 2286.
    return isinstance(one, bytes) and one.isdigit() and len(one) <= 11


def _is_change(one: Any) -> bool:
    """Return whether this is an entry of a stream: its id and the list of its fields."""
    return (
        one.__class__ is list
        and len(one) == 2
        and _is_value(one[0])
        and _list_of(one[1], _is_value)
        and len(one[1]) % 2 == 0
    )


def _is_time(answer: Any, _: Command) -> bool:
    return _list_of(answer, _is_digits) and len(answer) == 2


def _is_number(answer: Any, _: Command) -> bool:
    return isinstance(answer, int) and answer >= 0


def _are_values(answer: Any, _: Command) -> bool:
    return _list_of(answer, _is_value)


def _are_values_of(answer: Any, command: Command) -> bool:
    return _list_of(answer, _is_value_or_none) and len(answer) == len(command) - 1


def _are_changes(answer: Any, _: Command) -> bool:
    return _list_of(answer, _is_change)


# What is read from an answer has this form. Any other answer is no server's that we know. Of the
# commands that are missing here, nobody reads the answer.
_FORMS: Final[dict[bytes | str | int, Callable[[Any, Command], bool]]] = {
    "TIME": _is_time,
    "LRANGE": _are_values,
    "MGET": _are_values_of,
    "XRANGE": _are_changes,
    "XREVRANGE": _are_changes,
    "XLEN": _is_number,
    "ZCARD": _is_number,
    "RPUSH": _is_number,
    "EXPIRE": _is_number,
}


class Away(Exception):
    """The server cannot be used; the text says why."""


class Server(Protocol):
    """A server that runs commands."""

    def run(self, commands: list[Command]) -> list[Any]:
        """Run commands in one round trip; return their answers.

        The answer to an XADD whose id is not later than all others is None.

        Raises:
            Away: The server is not there, is too slow, refuses a command, or its answer is not
                understood.
        """
        ...

    def close(self) -> None:
        """Close the connection; the next command opens it again."""
        ...

    def abort(self) -> None:
        """Let what runs in another thread fail at once."""
        ...


class CountedSocket:
    """A socket from which only so many octets are received, and only so many parts of answers.

    A value is read whole before anybody can tell who has made it, and a server holds values of up
    to 512 MiB.
    """

    def __init__(self, connected: socket.socket, octets: int) -> None:
        self._socket = connected
        self._last = b"\r\n"  # octets that were received last: an answer may be cut anywhere
        self.allow(octets)

    def allow(self, octets: int) -> None:
        """Let a round trip bring so many octets."""
        self._octets = octets
        self._lines = LINES_MAX

    def recv(self, octets: int) -> bytes:
        """Receive octets as a socket does; raises what `recv_into` does."""
        data = self._socket.recv(octets)
        self._count(data, len(data))
        return data

    def recv_into(self, buffer: bytearray) -> int:
        """Receive octets as a socket does.

        Raises:
            redis.exceptions.ConnectionError: They were too many, or announce too many parts.
        """
        size = self._socket.recv_into(buffer)
        self._count(buffer, size)
        return size

    def _count(self, data: bytes | bytearray, size: int) -> None:
        self._octets -= size
        if self._octets < 0:
            raise ConnectionFault(TOO_LONG)
        self._lines -= data.count(b"\r\n", 0, size)
        self._lines -= self._last.endswith(b"\r") and data.startswith(b"\n", 0, size)
        seam = self._last + data[: min(size, _MANY_PARTS_OCTETS)]
        if self._lines < 0 or _MANY_PARTS.search(seam) or _MANY_PARTS.search(data, 0, size):
            raise ConnectionFault(TOO_MANY)
        self._last = (self._last + data[max(0, size - _MANY_PARTS_OCTETS) : size])[
            -_MANY_PARTS_OCTETS:
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class RedisServer:
    """One connection, for one thread.

    Args:
        url: redis://, rediss:// or unix://, with user name and password if needed.
        answer_s: How long each answer may take.
        answers_bytes_max: Octets of all answers of one round trip.
    """

    def __init__(self, url: str, answer_s: float, answers_bytes_max: int) -> None:
        self._answers_bytes_max = answers_bytes_max
        self._counted: CountedSocket | None = None
        make = cast("Any", ConnectionPool).from_url
        self._pool: ConnectionPool = make(
            url,
            socket_timeout=answer_s,
            socket_connect_timeout=CONNECT_S,
            decode_responses=False,
            protocol=2,
            retry=None,
            health_check_interval=0,
            parser_class=self._parser,
        )
        self._connection: Any = None

    def _parser(self, socket_read_size: int) -> Any:
        """Return the library's parser, which reads from a counted socket from the beginning on."""
        parser: Any = DefaultParser(socket_read_size)
        begin = parser.on_connect

        def on_connect(connection: Any) -> None:
            begin(connection)
            self._counted = CountedSocket(connection._sock, self._answers_bytes_max)
            # hiredis's parser has a buffer of octets, and the one in Python reads through its own.
            for reads in (parser, parser._buffer):
                if hasattr(reads, "_sock"):
                    reads._sock = self._counted

        parser.on_connect = on_connect
        return parser

    def run(self, commands: list[Command]) -> list[Any]:
        """Run commands in one round trip; return their answers.

        The answer to an XADD whose id is not later than all others is None.

        Raises:
            Away: The server is not there, is too slow, refuses a command, or its answer is not
                understood.
        """
        try:
            if self._connection is None:
                self._connection = self._pool.make_connection()
                self._connection.connect()
            connection = self._connection
            if not commands:
                return []
            if self._counted is not None:
                self._counted.allow(self._answers_bytes_max)
            connection.send_packed_command(connection.pack_commands(commands))
            answers: list[Any] = []
            refused: ResponseError | None = None
            for name, *_ in commands:
                try:
                    answers.append(connection.read_response())
                except ResponseError as error:
                    if name == "XADD" and NOT_LATER in str(error):
                        answers.append(None)
                    else:
                        refused = refused or error
            if refused is not None:
                raise refused
            for command, answer in zip(commands, answers, strict=True):
                form = _FORMS.get(command[0])
                if form is not None and not form(answer, command):
                    raise ValueError(f"the answer to {command[0]!s} is not understood")
        except (RedisError, OSError, ValueError, RecursionError) as error:
            # After any error: a server that is read-only or full may have been replaced by another
            # one with the same name.
            self.close()
            raise Away(_reason(error)) from None
        return answers

    def close(self) -> None:
        """Close the connection; the next command opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                connection.disconnect()

    def abort(self) -> None:
        """Let what runs in another thread fail at once."""
        connection = self._connection
        opened: socket.socket | None = getattr(connection, "_sock", None)
        if opened is not None:
            with suppress(OSError):
                # Below TLS, which another thread uses now.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    # The server's own words reach terminals.
    return "".join([one if one.isprintable() else "?" for one in text[:200]])

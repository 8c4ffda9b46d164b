"""The connection to Redis or Valkey: commands in, answers out, and one error for everything else.

redis-py is used for its URLs, TLS and authentication, without its asyncio part: a pipeline of
commands takes one task and several futures there, and a thread needs neither. It takes 7.3 MB of
memory, so this module is imported only with `--shared`.
"""

import socket
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from redis import ConnectionPool
from redis.exceptions import RedisError, ResponseError

Command = tuple[bytes | str | int, ...]

# A connection to a server in another data centre, with TLS.
CONNECT_S: Final = 1.0


# Redis and Valkey say so of an XADD whose id is not later than all others.
NOT_LATER: Final = "equal or smaller than the target stream top item"


class Away(Exception):
    """The server cannot be used; the text says why."""


class Server(Protocol):
    """A server that runs commands."""

    def run(self, commands: list[Command]) -> list[Any]:
        """Run commands in one round trip; return their answers.

        The answer to an XADD whose id is not later than all others is None.

        Raises:
            Away: The server is not there, is too slow, or refuses a command.
        """
        ...

    def close(self) -> None:
        """Close the connection; the next command opens it again."""
        ...

    def abort(self) -> None:
        """Let what runs in another thread fail at once."""
        ...


class RedisServer:
    """One connection, for one thread.

    Args:
        url: redis://, rediss:// or unix://, with user name and password if needed.
        answer_s: How long each answer may take.
    """

    def __init__(self, url: str, answer_s: float) -> None:
        make = cast("Any", ConnectionPool).from_url
        self._pool: ConnectionPool = make(
            url,
            socket_timeout=answer_s,
            socket_connect_timeout=CONNECT_S,
            decode_responses=False,
            protocol=2,
            retry=None,
            health_check_interval=0,
        )
        self._connection: Any = None

    def run(self, commands: list[Command]) -> list[Any]:
        """Run commands in one round trip; return their answers.

        The answer to an XADD whose id is not later than all others is None.

        Raises:
            Away: The server is not there, is too slow, or refuses a command.
        """
        try:
            if self._connection is None:
                self._connection = self._pool.make_connection()
                self._connection.connect()
            connection = self._connection
            if not commands:
                return []
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

"""The connections to the application that are open and unused: the one used last is taken first.

This is apart from the pool because each request comes here, and most need nothing else of it. So
it is compiled (setup.py), which the pool is not: tests put something else in the place of parts of
that. They put other connections in here, too; therefore it asks for no class.
"""

from math import inf
from typing import Generic, Protocol, TypeVar


class Idle(Protocol):
    """What is asked of a connection here."""

    closed: bool
    idle_since: float  # monotonic seconds
    made_at: float  # monotonic seconds

    def has_unread(self) -> bool: ...
    def close(self) -> None: ...


Connection = TypeVar("Connection", bound=Idle)


class IdleConnections(Generic[Connection]):
    """A stack of connections that are ready for a request.

    Attributes:
        stack: The connections, oldest first.
        idle_s: A connection that was idle for this long is not used any more (seconds).
        max_age_s: Nor is one that was made this long ago (seconds).
        keeps: Connections are kept at all.
    """

    __slots__ = ("idle_s", "keeps", "max_age_s", "stack")

    def __init__(self) -> None:
        self.stack: list[Connection] = []
        self.idle_s = inf
        self.max_age_s = inf
        self.keeps = True

    def put(self, connection: Connection, now: float) -> None:
        """Take back a connection whose response ended cleanly."""
        if not self.keeps:
            connection.close()
            return
        connection.idle_since = now
        self.stack.append(connection)

    def take(self, now: float, look: bool = False) -> Connection | None:
        """Take out the connection that was used last; None if none may be used.

        Args:
            look: Do not use one whose socket has unread bytes or EOF that the event loop has not
                reported yet. This is for requests that cannot be retried. It costs a system call,
                0.7 us.
        """
        stack = self.stack
        while stack:
            connection = stack.pop()
            if connection.closed:
                continue
            # It may be idle for too long if the process was blocked and the sweep is late. The
            # application may then be closing it.
            if (
                now - connection.idle_since < self.idle_s
                and now - connection.made_at < self.max_age_s
                and not (look and connection.has_unread())
            ):
                return connection
            connection.close()
        return None

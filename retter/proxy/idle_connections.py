"""The connections to the application that are open and unused: the one used last is taken first.

This is apart from the pool because each request comes here, and most need nothing else of it. It
is not compiled (setup.py), as the pool is not: tests put other connections in.
"""

from math import inf

from retter.proxy.upstream_connection import UpstreamConnection


class IdleConnections:
    """A stack of connections that are ready for a request.

    Attributes:
        stack: The connections, oldest first.
        idle_s: A connection that was idle for this long is not used any more (seconds).
        max_age_s: Nor is one that was made this long ago (seconds).
    """

    __slots__ = ("idle_s", "max_age_s", "stack")

    def __init__(self) -> None:
        self.stack: list[UpstreamConnection] = []
        self.idle_s = inf
        self.max_age_s = inf

    def take(self, now: float, look: bool = False) -> UpstreamConnection | None:
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

"""Octets that wait in memory: of a response that is not yet read or withheld, or of a request.

It is made when a client reads more slowly than the application writes. The application is read all
the same, until the response is whole or the backlog is full, so that it is free for others. It is
also made when a response is withheld, because a stored response could still replace it, and for the
octets of a client that are not used yet. No I/O: its owner says how many octets wait.
"""

from typing import Final

from retter.base.buffers import BufferBudget

# The memory of a write that waits in a transport, in addition to its octets: the object, its place
# in a list, and with uvloop a request to libuv (measured with writes of one octet: 850).
WRITE_BYTES = 1024

# Parts of heads, and requests that were read ahead, of all connections together, without the first
# 4 KiB of each: 250 of the largest heads. One client with 2,000 connections could take 200 MiB.
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024


class Backlog:
    """Octets of one response, or of one client's next requests.

    Args:
        free_bytes: This many are not counted: every response may have them.
        client: The number of its client; 0 if that is not known.
    """

    __slots__ = ("_budget", "_client", "_free_bytes", "_taken", "full", "writes")

    def __init__(self, budget: BufferBudget, free_bytes: int, client: int = 0) -> None:
        self._budget = budget
        self._client = client
        self._free_bytes = free_bytes
        self._taken = 0  # octets taken from the budget
        self.full = False
        self.writes = 0  # number of writes: each takes memory in addition to its octets

    def reserve(self, waiting: int, bytes_max: int) -> bool:
        """Take memory for the octets that wait; False if there is none left: the backlog is full.

        Args:
            bytes_max: Octets that may be taken, in addition to the free ones.
        """
        if self.full:
            return False
        more = waiting + self.writes * WRITE_BYTES - self._free_bytes - self._taken
        if more > 0:
            if self._budget.take(self._taken, more, bytes_max, self._client):
                self._taken += more
            else:
                self.full = True
                return False
        return True

    def release(self) -> None:
        """Give the memory back: the octets were sent or dropped."""
        self._budget.give_back(self._taken, self._client)
        self._taken = 0

"""The part of a response that waits in memory: written but not yet read, or held back.

Made when a client does not keep up with its answer: the application is read on all the same until
the answer is whole or the backlog is full, so that it is free for others. Made as well when an
answer is held back because a stored response could still stand in for it. No I/O: whoever has made
it says how many octets wait.
"""

from retter.base.buffers import BufferBudget

# What a write that waits in a transport takes beside its octets: the object, its place in a list,
# and with uvloop a request of its own to libuv (measured with writes of one octet: 850).
WRITE_BYTES = 1024


class Backlog:
    """Octets of one answer.

    Args:
        free_bytes: That many are not counted: any answer may have them.
        client: A number for who gets it; 0 if that is not known.
    """

    __slots__ = ("_budget", "_client", "_free_bytes", "_taken", "full", "writes")

    def __init__(self, budget: BufferBudget, free_bytes: int, client: int = 0) -> None:
        self._budget = budget
        self._client = client
        self._free_bytes = free_bytes
        self._taken = 0  # octets of the budget
        self.full = False
        self.writes = 0  # of which it consists: each takes memory beside its octets

    def reserve(self, waiting: int, bytes_max: int) -> bool:
        """Take memory for what waits now; False if that is too much, and then it is full.

        Args:
            bytes_max: Octets that may be taken, beside those that are free.
        """
        more = waiting + self.writes * WRITE_BYTES - self._free_bytes - self._taken
        if more > 0:
            if self._budget.take(self._taken, more, bytes_max, self._client):
                self._taken += more
            else:
                self.full = True
        return not self.full

    def release(self) -> None:
        """It has gone on, or never will."""
        self._budget.give_back(self._taken, self._client)
        self._taken = 0

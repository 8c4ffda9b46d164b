"""What has been written to a client that it has not taken yet.

Made when a client does not keep up with its answer. The application is read on all the same until
the answer is whole or the backlog is full, so that it is free for others; only a full backlog makes
it wait. No I/O: the connection says how many octets are unsent.
"""

from retter.buffers import BufferBudget


class Backlog:
    """The unsent octets of one client connection.

    Args:
        free_bytes: That many are not counted: what any connection may have unsent.
    """

    __slots__ = ("_budget", "_free_bytes", "_taken", "full")

    def __init__(self, budget: BufferBudget, free_bytes: int) -> None:
        self._budget = budget
        self._free_bytes = free_bytes
        self._taken = 0         # octets of the budget
        self.full = False       # the application waits

    def hold(self, unsent: int, bytes_max: int) -> bool:
        """Take memory for what is unsent now; False if that is too much, and then it is full.

        Args:
            bytes_max: Octets that may be taken, beside those that are free.
        """
        more = unsent - self._free_bytes - self._taken
        if more > 0:
            if self._budget.take(self._taken, more, bytes_max):
                self._taken += more
            else:
                self.full = True
        return not self.full

    def release(self) -> None:
        """The client has taken it, or never will."""
        self._budget.give_back(self._taken)
        self._taken = 0

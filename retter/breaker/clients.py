"""Whose failures count: those of one client say something about that client.

A firewall plugin blocks it, it sends what the application cannot bear, its own data is broken. So
of what one client meets in a window only two failures count, and nothing is concluded from failures
before they come from three clients, or from all that were active. Who goes on failing while others
are answered well is in doubt: it does not find out whether the application works again.
"""

from collections import OrderedDict
from math import inf
from typing import Final

from retter.breaker import constants

UNKNOWN_CLIENT: Final = 0  # each is taken for a client of its own
_NOBODY: Final = -1


class Clients:
    """The clients that failed lately, and the three clients that were answered well last."""

    __slots__ = (
        "_doubted",
        "_failed",
        "_failed_in_row",
        "_first",
        "_first_at",
        "_second",
        "_second_at",
        "_third",
        "_third_at",
        "_unknown",
        "_unknown_in_row",
        "_window_at",
    )

    def __init__(self, now: float) -> None:
        self._first, self._first_at = _NOBODY, -inf  # the latest
        self._second, self._second_at = _NOBODY, -inf
        self._third, self._third_at = _NOBODY, -inf
        self._failed: dict[int, int] = {}  # failures of each in this window
        self._unknown = 0  # failures of unknown ones in it
        self._window_at = now
        self._failed_in_row: set[int] = set()  # who failed since the last good answer
        self._unknown_in_row = 0
        self._doubted: OrderedDict[int, tuple[float, float]] = OrderedDict()  # since, until

    def passed(self, client: int, now: float) -> None:
        """A client has been answered well."""
        if client != self._first:
            if client != self._second:
                self._third, self._third_at = self._second, self._second_at
            self._second, self._second_at = self._first, self._first_at
            self._first = client
        self._first_at = now
        if self._failed_in_row or self._unknown_in_row:
            self._failed_in_row.clear()
            self._unknown_in_row = 0
        if self._doubted:
            self._doubted.pop(client, None)

    def failed(self, client: int, now: float) -> bool:
        """A client has met a failure; say whether it counts."""
        if client == UNKNOWN_CLIENT:
            self._unknown += 1
            self._unknown_in_row += 1
            return True
        failed = self._failed
        failures = failed[client] = failed.get(client, 0) + 1
        self._failed_in_row.add(client)
        if len(failed) > constants.CLIENTS_MAX or len(self._failed_in_row) > constants.CLIENTS_MAX:
            failed.clear()
            self._failed_in_row.clear()
        if failures <= constants.CLIENT_FAILURES_MAX or not self._others_passed({client}, now):
            return True
        since, _ = self._doubted.pop(client, (now, now))
        self._doubted[client] = since, now + constants.DOUBT_S
        if len(self._doubted) > constants.CLIENTS_MAX:
            self._doubted.popitem(last=False)
        return False

    def agree(self, now: float) -> bool:
        """Say whether the failures come from enough clients to conclude something from them."""
        failing = self._failed_in_row.union(self._failed)
        unknown = max(self._unknown, self._unknown_in_row)
        if len(failing) + unknown >= constants.CLIENTS_AGREE:
            return True
        return not self._others_passed(failing, now)

    def _others_passed(self, clients: set[int], now: float) -> bool:
        since = now - constants.CLIENT_ACTIVE_S
        return (
            (self._first_at >= since and self._first not in clients)
            or (self._second_at >= since and self._second not in clients)
            or (self._third_at >= since and self._third not in clients)
        )

    def is_doubted(self, client: int, now: float) -> bool:
        """Say whether others were answered well while this client went on failing."""
        doubted = self._doubted.get(client)
        if doubted is None or now >= doubted[1]:
            return False
        since = doubted[0]
        if self._first == client:
            return self._second_at >= since
        return self._first_at >= since

    def advance(self, now: float) -> None:
        """Begin the next window when this one is over."""
        if now - self._window_at >= constants.CLIENT_WINDOW_S:
            self._window_at = now
            self._unknown = 0
            if self._failed:
                self._failed.clear()

    def clear(self) -> None:
        """Judge afresh; who was in doubt is so still."""
        self._failed.clear()
        self._failed_in_row.clear()
        self._unknown = self._unknown_in_row = 0

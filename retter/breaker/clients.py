"""Decides which failures count. The failures of one client may only concern that client.

Perhaps a firewall plugin blocks the client, it sends requests that the application cannot handle,
or its own data is broken. Therefore:

- Only two failures of one client count in a window.
- Nothing is concluded from failures until they come from three clients, or from all active ones.
- A client that keeps failing while others get good answers is in doubt. Its request is the probe
  only if no other client has come for DOUBTED_PROBE_S.
"""

from collections import OrderedDict
from math import inf
from typing import Final

from retter.breaker import constants

UNKNOWN_CLIENT: Final = 0  # each such request counts as a client of its own


class Clients:
    """The clients that failed lately, and the last three clients that got a good answer."""

    def __init__(self, now: float) -> None:
        self._passed: OrderedDict[int, float] = OrderedDict()  # when; the latest is the last
        self._failed: dict[int, int] = {}  # failures of each client in this window
        self._window_at = now
        self._failed_in_row: set[int] = set()  # clients that failed since the last good answer
        self._strangers = 0  # numbers of clients that are not known: below 0, each used once
        self._doubted: OrderedDict[int, tuple[float, float]] = OrderedDict()  # since, until

    def passed(self, client: int, now: float) -> None:
        """Record that a client got a good answer."""
        passed = self._passed
        passed[client] = now
        passed.move_to_end(client)
        if len(passed) > constants.CLIENTS_AGREE:
            passed.popitem(last=False)
        if self._failed_in_row:
            self._failed_in_row.clear()
        if self._doubted:
            self._doubted.pop(client, None)

    @property
    def doubts(self) -> bool:
        """Whether any client is in doubt."""
        return bool(self._doubted)

    def failed(self, client: int, now: float) -> bool:
        """Record that a client's request failed; return whether the failure counts."""
        if client == UNKNOWN_CLIENT:
            client = self._strangers = self._strangers - 1
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
        """Return whether the failures come from enough clients to be a sign of anything."""
        failing = self._failed_in_row.union(self._failed)
        return len(failing) >= constants.CLIENTS_AGREE or not self._others_passed(failing, now)

    def _others_passed(self, clients: set[int], now: float) -> bool:
        since = now - constants.CLIENT_ACTIVE_S
        return any(at >= since and one not in clients for one, at in self._passed.items())

    def good_at(self, client: int) -> float:
        """Return when another client got a good answer last; -inf: that is not known."""
        return max([at for one, at in self._passed.items() if one != client], default=-inf)

    def is_doubted(self, client: int, now: float) -> bool:
        """Return whether others got good answers while this client kept failing."""
        doubted = self._doubted.get(client)
        if doubted is None or now >= doubted[1]:
            return False
        return any(at >= doubted[0] and one != client for one, at in self._passed.items())

    def advance(self, now: float) -> None:
        """Begin the next window if this one is over."""
        if now - self._window_at >= constants.CLIENT_WINDOW_S:
            self._window_at = now
            if self._failed:
                self._failed.clear()

    def clear(self) -> None:
        """Forget the failures counted so far; clients in doubt remain in doubt."""
        self._failed.clear()
        self._failed_in_row.clear()

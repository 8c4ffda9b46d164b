"""Awaited event streams: recognises a request for a stream before its answer has begun.

Many frameworks send the head of a stream with its first event, which may come after minutes. So a
request whose `Accept` is `text/event-stream` alone, as that of a browser's EventSource, holds no
place at the application and has the time of a stream from its first byte.

A client may send this field for ordinary pages too, to evade the limit. So the field is believed
without a limit only on routes whose requests of this kind the application has answered with
streams. On other routes it is believed on credit: for a limited number of requests at a time. Each
answer that is no stream lowers that number, and its route is not believed at all for a while. A
request that is not believed is an ordinary one.
"""

from collections import OrderedDict
from typing import Final

from retter.base.errors import Outcome

# Streams that are waited for on credit at a time. Before the first event of a stream a page that
# everybody has open opens as many as there are visitors; those that are too many are ordinary
# requests, and the first stream that begins takes the route from the credit.
CREDIT_MAX: Final = 64
CLIENT_CREDIT_MAX: Final = 32  # for one client: half of it is left to others
# What an answer that is no stream costs, and how soon the credit comes back (a second).
CREDIT_CUT: Final = 0.5
CREDIT_GROWTH: Final = 1.0
# For so many seconds a route that has answered otherwise is not believed without reserve.
DOUBT_S: Final = 600.0
# Routes are remembered by name, the latest ones. A site has a handful of streams.
ROUTES_MAX: Final = 64

NOT_AWAITED: Final = 0  # an ordinary request
PROVEN: Final = 1  # the route is known for its streams
ON_CREDIT: Final = 2


class AwaitedStreams:
    """Decides for each request that asks for events, and learns from the answers."""

    __slots__ = ("_by_client", "_credit", "_credit_at", "_on_credit", "_others", "_streams")

    def __init__(self) -> None:
        self._streams: OrderedDict[bytes, float] = OrderedDict()  # routes; latest last
        self._others: OrderedDict[bytes, float] = OrderedDict()  # that answered otherwise
        self._by_client: dict[int, int] = {}  # on credit
        self._on_credit = 0
        self._credit = float(CREDIT_MAX)
        self._credit_at = 0.0

    def judge(self, route: bytes, client: int, now: float) -> int:
        """Return how a request is treated: NOT_AWAITED, PROVEN or ON_CREDIT."""
        streams, doubted = route in self._streams, self._is_doubted(route, now)
        if streams and not doubted:
            return PROVEN
        if doubted and not streams:
            return NOT_AWAITED
        if self._on_credit >= self._credit_now(now):
            return NOT_AWAITED
        if client and self._by_client.get(client, 0) >= CLIENT_CREDIT_MAX:
            return NOT_AWAITED
        return ON_CREDIT

    def begin(self, how: int, client: int) -> None:
        """Count a request, as it was judged. Afterwards, call `end` once."""
        if how == ON_CREDIT:
            self._by_client[client] = self._by_client.get(client, 0) + 1
            self._on_credit += 1

    def end(self, how: int, client: int) -> None:
        """The answer has begun, or will never come."""
        if how == ON_CREDIT:
            self._on_credit -= 1
            left = self._by_client[client] - 1
            if left:
                self._by_client[client] = left
            else:
                del self._by_client[client]

    def answered(
        self, route: bytes, status: int, outcome: Outcome, now: float, *, stream: bool
    ) -> None:
        """Learn whether the answer to a request for events was a stream.

        A failure says nothing, nor does 204, which ends a stream for good (HTML Living Standard,
        section 9.2). A 4xx on a route of streams speaks of that request alone: anybody may ask
        there for what does not exist, and other people's streams would hold places.
        """
        if stream:
            _remember(self._streams, route, now)
        elif (
            outcome is Outcome.OK and status != 204 and (status < 400 or route not in self._streams)
        ):
            _remember(self._others, route, now)
            self._credit = max(1.0, CREDIT_CUT * self._credit_now(now))
            self._credit_at = now

    def _credit_now(self, now: float) -> float:
        return min(CREDIT_MAX, self._credit + CREDIT_GROWTH * (now - self._credit_at))

    def _is_doubted(self, route: bytes, now: float) -> bool:
        at = self._others.get(route)
        return at is not None and now - at < DOUBT_S


def _remember(routes: OrderedDict[bytes, float], route: bytes, now: float) -> None:
    routes[route] = now
    routes.move_to_end(route)
    if len(routes) > ROUTES_MAX:
        routes.popitem(last=False)

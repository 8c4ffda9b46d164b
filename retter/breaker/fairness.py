"""The order of requests when there are not enough places for all.

decide.py and limit.py decide how many requests go to the application. This module decides the lane
in which each request waits:

    heavy     the client says itself that it is a crawler, or it asks for more than its fair share
    known     not heavy, and carries a session that the application has begun, or a ticket
    stranger  neither

Demand is counted while at least half of the places are in use. Below that, nothing is counted and
no request gets a lane. While the circuit is closed, demand is counted but no request gets a lane.

A client that invents a session or a ticket does not become known, and its demand does not become
smaller.
"""

from binascii import crc32
from math import inf
from typing import Final, NamedTuple

from retter.breaker import constants
from retter.breaker.demand import NOBODY, WINDOW_S, DemandTable
from retter.breaker.permit import HEAVY, KNOWN, STRANGER, UNSORTED, Permit
from retter.breaker.tickets import Ticket, Tickets
from retter.store.known_sessions import ISSUED, UNKNOWN

LANE_WORDS: Final = ("known", "stranger", "heavy")


class Asker(NamedTuple):
    """The client of a request: the facts that decide the order."""

    client: int = NOBODY  # the number of its address (base/client_id.py)
    name: str = ""  # the name of its address, for operators
    session: int = NOBODY  # the number of its session
    standing: int = UNKNOWN  # the status of that session (store/known_sessions.py)
    crawler: str = ""  # the name that a crawler gives itself
    ticket: bytes = b""


class Sorted(NamedTuple):
    """The lane of a request, and the client and ticket that decided it."""

    lane: int
    asker: int  # the number whose demand counts
    ticket: int = -1  # number of a valid ticket
    since: float = inf  # when the ticket's holder tried first


NOT_SORTED: Final = Sorted(UNSORTED, NOBODY)


class Fairness:
    """The demand of the clients, their fair share, and the lane of each request.

    Args:
        secret: The key of this process, for tickets.
    """

    def __init__(self, secret: bytes, now: float) -> None:
        self.demand = DemandTable()
        self.tickets = Tickets(secret, now)
        self._share_s = inf  # the fair share of each client
        self._light_s = inf  # a demand up to this is never too much
        self._share_at = -inf
        self._since: float | None = None  # when the shortage of places began
        self.asked = [0, 0, 0]  # requests by lane
        self.left = [0, 0, 0]  # of these, the ones that moved to the heavy lane while they waited
        self.got = [0, 0, 0]  # places by lane

    @property
    def limit_s(self) -> float:
        """A client whose demand exceeds this is heavy; seconds of work in the demand's window."""
        return max(self._share_s, self._light_s)

    def note(self, asker: Asker, work_s: float, now: float) -> Sorted:
        """Add to the client's demand, and find no lane."""
        who = self._who(asker)
        self.demand.note(who, work_s, now)
        return Sorted(UNSORTED, who)

    @staticmethod
    def _who(asker: Asker) -> int:
        """Return the number of the client whose demand the request adds to.

        A session that the application has begun counts by itself, because visitors who share an
        address must not suffer for each other. Any other session may be invented, so it adds to the
        demand of its address. Crawlers with the same name are one client, from all their addresses.
        """
        if asker.crawler:
            return NOBODY - 1 - crc32(asker.crawler.encode())
        return asker.session if asker.standing == ISSUED else asker.client

    def sort(self, asker: Asker, work_s: float, now: float) -> Sorted:
        """Add to the client's demand, and find the lane.

        A client that comes again with its ticket does not add to its demand a second time, until it
        gets a place (`admitted`).
        """
        if not asker.ticket or self.tickets.read(asker.ticket, asker.client, now) is None:
            self.demand.note(self._who(asker), work_s, now)
        place = self.place_of(asker, now)
        if place.ticket >= 0 and not self.tickets.claim(place.ticket):
            place = Sorted(STRANGER, place.asker)  # another worker took it this very moment
        if place.lane == HEAVY:
            self.demand.call(place.asker, asker.crawler or asker.name)
        self.asked[place.lane] += 1
        return place

    def sort_again(self, permit: Permit, now: float) -> Sorted | None:
        """Find the lane of a waiting request once more; None: it stays where it is.

        It moves if its client has grown heavy. If it arrived while lanes were not assigned, it gets
        one now; its demand has been counted already.
        """
        if permit.lane == UNSORTED:
            if not isinstance(permit.who, Asker):
                return None
            place = self.place_of(permit.who, now)
        elif permit.lane != HEAVY and self.is_heavy(permit.asker, now):
            self.left[permit.lane] += 1
            place = Sorted(HEAVY, permit.asker, permit.ticket, permit.since)
        else:
            return None
        self.asked[place.lane] += 1
        return place

    def place_of(self, asker: Asker, now: float, more_s: float = 0.0) -> Sorted:
        """Find the lane, and change nothing; `more_s` is demand that has not been counted yet."""
        who = self._who(asker)
        if asker.crawler or self.is_heavy(who, now, more_s):
            return Sorted(HEAVY, who)
        if asker.standing != UNKNOWN:
            return Sorted(KNOWN, who)
        if asker.ticket:
            ticket = self.tickets.read(asker.ticket, asker.client, now)
            if ticket is not None and not self.tickets.stands(ticket.number):
                return Sorted(KNOWN, who, ticket.number, ticket.since)
        return Sorted(STRANGER, who)

    def is_heavy(self, who: int, now: float, more_s: float = 0.0) -> bool:
        """Return whether a client's demand is too large."""
        return self.demand.demand_of(who, now) + more_s > self.limit_s

    def ticket_for(self, asker: Asker, now: float) -> tuple[bytes, float]:
        """Return the ticket to send with a rejection, and the time of its holder's first try.

        A client with a valid ticket keeps it.
        """
        held: Ticket | None = None
        if asker.ticket:
            held = self.tickets.read(asker.ticket, asker.client, now)
        if held is not None:
            return asker.ticket, held.since
        return self.tickets.issue(asker.client, now), now

    def admitted(self, permit: Permit, work_s: float, now: float) -> None:
        """Count the place that a request got; its ticket becomes used.

        What a ticket's holder asked for has decayed since the first try, and counts in full again:
        a client that collected tickets and let its demand decay would have as many places in turn.
        """
        self.demand.gave(permit.asker, work_s, now)
        if permit.lane != UNSORTED:
            self.got[permit.lane] += 1
        if permit.ticket >= 0:
            decayed = 1 - 0.5 ** ((now - permit.since) / constants.DEMAND_HALF_LIFE_S)
            self.demand.note(permit.asker, work_s * decayed, now)
            self.tickets.spend(permit.ticket)

    def tick(self, now: float, workers: float, baseline_s: float, *, enough: bool) -> bool:
        """Let the table decay, and compute the fair share; return whether it was computed anew.

        Args:
            workers: Number of busy workers: the seconds of work that it can do in a second.
            baseline_s: The mean service time.
            enough: Whether there are enough places for all, so that no request gets a lane.
        """
        if enough:
            self._since = None
        elif self._since is None:
            self._since, self._share_at = now, -inf
        if self.demand.is_empty:
            return False
        self.demand.advance(now)
        if now - self._share_at < constants.FAIR_SHARE_EVERY_S:
            return False
        self._share_at = now
        demands = self.demand.demands(now)
        self._share_s = self.demand.fair_share(demands, now)
        capacity_s = max(1.0, workers) * WINDOW_S
        self._light_s = max(
            constants.LIGHT_SHARE * capacity_s, constants.LIGHT_ANSWERS * baseline_s
        )
        # At first every client's demand is small, so the limit begins small too. But a small limit
        # is only right if those above it cause the shortage.
        age_s = 0.0 if self._since is None else now - self._since
        seen = 1 - 0.5 ** (age_s / constants.DEMAND_HALF_LIFE_S)
        first_s = constants.LIGHT_ANSWERS_FIRST * baseline_s
        early_s = first_s + seen * (self._light_s - first_s)
        if self.demand.explains(demands, max(self._share_s, early_s), now):
            self._light_s = early_s
        return True

"""The order of requests when there is not enough for all.

How many requests go to the application is decided elsewhere (decide.py, limit.py); here, into which
lane of the line each of them comes:

    heavy     the client says itself that it is a crawler, or it asks for more than its fair share
    known     not heavy, and carries a session that the application has begun, or a ticket
    stranger  neither

A client's demand counts from the moment that the application has something to do: from half of the
places in use. Below that, nothing is counted and nobody is sorted. While the circuit is closed
demand alone is counted. What a client can make up makes it known to nobody, and no demand lighter.
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
    """The client of a request, as far as it matters for the order."""

    client: int = NOBODY  # of its address (base/client_id.py)
    name: str = ""  # of its address, for operators
    session: int = NOBODY  # a number that stands for its session
    standing: int = UNKNOWN  # of that session (store/known_sessions.py)
    crawler: str = ""  # the word by which it says that it is one
    ticket: bytes = b""


class Sorted(NamedTuple):
    """Where a request stands."""

    lane: int
    asker: int  # the number whose demand counts
    ticket: int = -1  # number of a ticket that is good
    since: float = inf  # when its holder tried first


NOT_SORTED: Final = Sorted(UNSORTED, NOBODY)


class Fairness:
    """What is known of who asks for how much.

    Args:
        secret: Of this process, for tickets.
    """

    __slots__ = (
        "_light_s",
        "_share_at",
        "_share_s",
        "_since",
        "asked",
        "demand",
        "got",
        "left",
        "tickets",
    )

    def __init__(self, secret: bytes, now: float) -> None:
        self.demand = DemandTable()
        self.tickets = Tickets(secret, now)
        self._share_s = inf  # what each client may ask for: its fair share
        self._light_s = inf  # so much is never too much
        self._share_at = -inf
        self._since: float | None = None  # when there was too little for the first time
        self.asked = [0, 0, 0]  # requests by lane
        self.left = [0, 0, 0]  # of them, those that went to the heavy ones while they waited
        self.got = [0, 0, 0]  # places by lane

    @property
    def limit_s(self) -> float:
        """Who asks for more than this is heavy; seconds of work in the demand's window."""
        return max(self._share_s, self._light_s)

    def note(self, asker: Asker, work_s: float, now: float) -> Sorted:
        """Count what is asked for, and no more than that."""
        who = self._who(asker)
        self.demand.note(who, work_s, now)
        return Sorted(UNSORTED, who)

    @staticmethod
    def _who(asker: Asker) -> int:
        """Return whose demand it is.

        A session that the application has begun stands for itself: those who share an address must
        not suffer together. One that may be made up adds to what its address asks for. Crawlers of
        one word are one client, from however many addresses they come.
        """
        if asker.crawler:
            return NOBODY - 1 - crc32(asker.crawler.encode())
        return asker.session if asker.standing == ISSUED else asker.client

    def sort(self, asker: Asker, work_s: float, now: float) -> Sorted:
        """Count what is asked for, and find the lane.

        Who comes again with its ticket asks for nothing more than with its first try.
        """
        if not asker.ticket or self.tickets.read(asker.ticket, asker.client, now) is None:
            self.demand.note(self._who(asker), work_s, now)
        place = self.place_of(asker, now)
        if place.lane == HEAVY:
            self.demand.call(place.asker, asker.crawler or asker.name)
        self.asked[place.lane] += 1
        return place

    def sort_late(self, asker: Asker, now: float) -> Sorted:
        """Find the lane of one who came when nobody was sorted: its demand has been counted."""
        place = self.place_of(asker, now)
        self.asked[place.lane] += 1
        return place

    def place_of(self, asker: Asker, now: float, more_s: float = 0.0) -> Sorted:
        """Find the lane, and change nothing; `more_s` is asked for beside what has been noted."""
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
        """Say whether a client asks for too much."""
        return self.demand.demand_of(who, now) + more_s > self.limit_s

    def grown_heavy(self, permit: Permit, now: float) -> bool:
        """Say whether the client of one who waits asks for too much by now; it changes its lane."""
        grown = self.is_heavy(permit.asker, now)
        if grown:
            self.left[permit.lane] += 1
            self.asked[HEAVY] += 1
        return grown

    def ticket_for(self, asker: Asker, now: float) -> tuple[bytes, float]:
        """Return the ticket to send with a refusal, and since when its holder has tried.

        Who has one that is good keeps it.
        """
        held: Ticket | None = None
        if asker.ticket:
            held = self.tickets.read(asker.ticket, asker.client, now)
        if held is not None:
            return asker.ticket, held.since
        return self.tickets.issue(asker.client, now), now

    def admitted(self, permit: Permit, work_s: float, now: float) -> None:
        """Count the place that a request has got; its ticket is used up."""
        self.demand.gave(permit.asker, work_s, now)
        if permit.lane != UNSORTED:
            self.got[permit.lane] += 1
        if permit.ticket >= 0:
            self.tickets.spend(permit.ticket)

    def tick(self, now: float, workers: float, baseline_s: float, *, enough: bool) -> bool:
        """Let the table decay, and find the fair share; return whether it is a new one.

        Args:
            workers: How many the application keeps busy: the work that it can do in a second.
            baseline_s: What an answer takes.
            enough: Whether there is enough for all: nobody is sorted.
        """
        if enough:
            self._since = None
        elif self._since is None:
            self._since, self._share_at = now, -inf
        if not len(self.demand):
            return False
        self.demand.advance(now)
        if now - self._share_at < constants.FAIR_SHARE_EVERY_S:
            return False
        self._share_at = now
        self._share_s = self.demand.fair_share(now)
        # At first little has been asked for by anyone, so less is much.
        age_s = 0.0 if self._since is None else now - self._since
        seen = 1 - 0.5 ** (age_s / constants.DEMAND_HALF_LIFE_S)
        capacity_s = max(1.0, workers) * WINDOW_S
        light_s = max(constants.LIGHT_SHARE * capacity_s, constants.LIGHT_ANSWERS * baseline_s)
        first_s = constants.LIGHT_ANSWERS_FIRST * baseline_s
        self._light_s = first_s + seen * (light_s - first_s)
        return True

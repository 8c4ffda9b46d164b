"""Turns, between HTTP and the breaker: identifies the client, and answers visitors who must wait.

None of this is done while the application has little to do (`CircuitBreaker.wants_asker`).
"""

import random
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from retter.breaker import Asker, CircuitBreaker, FairnessMode, State
from retter.breaker.fairness import LANE_WORDS
from retter.breaker.permit import KNOWN
from retter.breaker.tickets import TICKET_S
from retter.http.forwarding import ForwardingFields
from retter.http.known_names import FRAGMENT_FIELDS, PREFETCH_FIELDS
from retter.http.message import RequestHead
from retter.http.turn_cookie import set_ticket
from retter.proxy.request import ParsedRequest
from retter.store.known_sessions import ISSUED
from retter.store.owner import OwnerRules

if TYPE_CHECKING:
    from retter.proxy.waiting_page import Wait  # with texts in twelve languages

AGENTS_REMEMBERED_MAX: Final = 1024  # a miss costs 3 us
AGENT_BYTES_MAX: Final = 512  # of a User-Agent that are looked at, and remembered

AGAIN_MIN_S: Final = 2.0  # the page loads itself again after so long,
AGAIN_MAX_S: Final = 4.0  # spread, so that not all come back at once;
AGAIN_LONGEST_S: Final = 30.0  # later if the line is long

# A mark (owner.py) as a number that is no client's address and no crawler's word.
_SESSION_BITS: Final = (1 << 62) - 1
_SESSION: Final = 1 << 62


def is_session_number(number: int) -> bool:
    """Return whether a client's number is a session's, and not its address's."""
    return number >= _SESSION


class Turns:
    """Identifies clients, and makes the page for visitors who have to wait."""

    def __init__(self, breaker: CircuitBreaker, words: tuple[str, ...], rules: OwnerRules) -> None:
        self._breaker = breaker
        self.configure(words, rules)

    def configure(self, words: tuple[str, ...], rules: OwnerRules) -> None:
        """Follow other settings."""
        self._rules = rules
        lowered = [(word, word.encode()) for word in words]

        @lru_cache(AGENTS_REMEMBERED_MAX)
        def crawler_of(agent: bytes) -> str:
            lower = agent.lower()
            return next((word for word, octets in lowered if octets in lower), "")

        self._crawler_of = crawler_of

    def asker_of(
        self,
        forwarding: ForwardingFields,
        parsed: ParsedRequest,
        client: int,
        now: float,
        has_stored: bool = False,
    ) -> Asker | None:
        """Return a description of the client; None if it does not matter.

        A ticket counts only for a page without a stored response. Otherwise the next picture of a
        page in another tab, or its icon, would use it up.

        Args:
            client: The number of its address.
            has_stored: There is a stored response for it.
        """
        if self._breaker.circuit.fairness is None:
            return None
        session, standing = self._session_of(parsed, now)
        ticket = parsed.ticket
        if ticket and (has_stored or not is_navigation(parsed.head)):
            ticket = b""
        return Asker(
            client,
            forwarding.client_of(parsed.head),
            session,
            standing,
            self.crawler_word(parsed.head),
            ticket,
        )

    def crawler_word(self, request: RequestHead) -> str:
        """Return the word by which a crawler's request names itself; empty if there is none."""
        agent = request.first(b"user-agent")
        return self._crawler_of(agent[:AGENT_BYTES_MAX]) if agent else ""

    def lane_of(
        self, forwarding: ForwardingFields, parsed: ParsedRequest, client: int, now: float
    ) -> str:
        """Return the word of the lane that a request has now; "" while there are no lanes."""
        fairness = self._breaker.circuit.fairness
        if fairness is None or self._breaker.circuit.state is State.CLOSED:
            return ""
        asker = self.asker_of(forwarding, parsed, client, now)
        return "" if asker is None else LANE_WORDS[fairness.place_of(asker, now).lane]

    def _session_of(self, parsed: ParsedRequest, now: float) -> tuple[int, int]:
        identity = parsed.identity
        if not identity.session:
            return 0, 0
        if identity.rolling is not None:
            # Each answer sets another value; only the lineage stays the same.
            place = self._rules.lineages.find(identity.rolling.value)
            if place is not None:
                return _SESSION | (int.from_bytes(place.lineage[:8]) & _SESSION_BITS), ISSUED
        standing, mark = self._rules.seen.known.standing_of(identity.marks, now)
        return _SESSION | (mark & _SESSION_BITS), standing

    def wait_of(
        self,
        forwarding: ForwardingFields,
        parsed: ParsedRequest,
        client: int,
        now: float,
        pause_s: float = 0.0,
        waited_s: float = 0.0,
    ) -> "Wait | None":
        """Return the page for a visitor who has to wait.

        None if the client is no browser, or the page cannot be read.

        Args:
            pause_s: The time for which no client gets a place; 0 if the next try may get one.
            waited_s: How long this request has waited; its next try comes sooner by that time.
        """
        breaker = self._breaker
        fairness = breaker.circuit.fairness
        if (
            fairness is None
            or breaker.circuit.settings.fairness is not FairnessMode.ON
            or not is_navigation(parsed.head)
        ):
            return None
        try:
            from retter.proxy.waiting_page import Wait, language_of, waiting_page
        except OSError:
            return None  # no descriptor is left to read it with

        language = language_of(parsed.head.combined(b"accept-language"))
        if pause_s:
            again_s = max(2, round(min(pause_s, AGAIN_LONGEST_S) + random.uniform(0, 2)))
            return Wait(again_s, waiting_page(language, again_s, queued=False), "")
        asker = Asker(client, ticket=parsed.ticket)
        ticket, since = fairness.ticket_for(asker, now)
        line_s = breaker.expected_wait_s(KNOWN)
        later_s = random.uniform(AGAIN_MIN_S, AGAIN_MAX_S) - waited_s
        again_s = round(max(AGAIN_MIN_S, later_s) + min(line_s, AGAIN_LONGEST_S))
        max_age_s = max(again_s + 1, round(since + TICKET_S - now))
        return Wait(
            again_s,
            waiting_page(language, again_s, queued=True),
            set_ticket(ticket, max_age_s, secure=forwarding.is_https(parsed.head)),
        )


def is_navigation(request: RequestHead) -> bool:
    """Return whether a person will see the answer: it is for a page, not for a part of one.

    Scripts that put fragments into a page, and browsers that fetch pages ahead, may name text/html
    too. Over plain http there is no Sec-Fetch-Mode that tells them apart.
    """
    if request.method != b"GET" or b"text/html" not in request.combined(b"accept").lower():
        return False
    mode = request.first(b"sec-fetch-mode")
    if mode is not None and mode.strip().lower() != b"navigate":
        return False
    if (request.first(b"x-requested-with") or b"").strip().lower() == b"xmlhttprequest":
        return False
    return all(request.first(name) is None for name in (*FRAGMENT_FIELDS, *PREFETCH_FIELDS))


def wait_for_restart(request: RequestHead) -> "Wait | None":
    """Return the page for a visitor while the application accepts no connections.

    None if the client is no browser, or the page cannot be read.
    """
    if not is_navigation(request):
        return None
    try:
        from retter.proxy.waiting_page import Wait, language_of, waiting_page
    except OSError:
        return None  # no descriptor is left to read it with

    language = language_of(request.combined(b"accept-language"))
    again_s = round(random.uniform(AGAIN_MIN_S, AGAIN_MAX_S))
    return Wait(again_s, waiting_page(language, again_s, queued=False, restart=True), "")

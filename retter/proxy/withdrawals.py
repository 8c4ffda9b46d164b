"""Withdrawals: the application refuses a page that was good (401, 403, 404, 410).

Such a page is not the last good answer any more: an editor has hidden it, a credential has been
revoked (RFC 9111 section 4.3.3: a full response other than a 5xx takes the place of what is
stored). So the stored response goes, with all variants and forms.

A refusal may concern its client alone: a firewall blocks its address, a plugin its User-Agent or
Referer. So what is stored for everyone is in doubt first, if another client was given a good answer
to the same URL within DOUBT_S. The doubt ends with the next good answer (the page is there), with
the refusal of another client (it is not), or when DOUBT_S have passed since that good answer
(nobody has had the page since). So a page taken back is shown from the store for at most DOUBT_S
longer; no doubt ends by time while the circuit is open, since nobody can get a good answer then.
Where no addresses are known all clients are one, and nothing is doubted.

Pages that nobody else has read for longer go with one client's refusal. If others are then given
three of them again within a minute, the refusals did concern that client alone: what it has hidden
is given back, and for a minute nothing goes by its refusals alone.

Where a rule such as `--ignore-query` makes one URL of many, the application may refuse one of them
(`?page=9999`, a foreign Host) and have the others. So it takes back what it gave for the very same
host and target, and what it gave for any of them if there was nothing in the request to be ignored.

It stays while the circuit is open or half-open, and when very many pages are refused together: that
is a broken deployment and no editor. Since that shows only after some pages, what has been taken
back is hidden first and removed a minute later, and a mass gives it back.
"""

from collections import OrderedDict, deque
from itertools import islice
from math import inf
from typing import Final, NamedTuple

from retter.breaker import State
from retter.store.policy import Identity, key_parts
from retter.store.store import ResponseStore
from retter.store.taken_back import Withdrawn

# Gone for everybody; and not for this visitor, at least.
_GONE: Final = frozenset((404, 410))
_DENIED: Final = frozenset((401, 403))

# The pages refused in so many seconds are compared with the good answers in them.
WINDOW_S: Final = 10.0
# More than this share of the GETs that had a stored response is a mass ...
MASS_SHARE: Final = 0.2
# ... but not below so many pages, so that an editor of a site with three visitors can take back an
# article and its pictures. Where nobody asks for anything else they count beyond the window too.
MASS_PAGES_MIN: Final = 5
# So many pages of the window are told apart: at a thousand it is a mass or a very large site.
PAGES_MAX: Final = 1024
# What is hidden can be given back for so long, and is removed then. A quiet site has its five
# pages refused in this time.
HIDDEN_S: Final = 60.0
# More are removed at once, without a way back: each holds a key and a tuple (a few hundred bytes).
HIDDEN_MAX: Final = 4096
# Pages refused to one client in a row, without a good answer: more say that the client is shut out
# (by a firewall plugin), and nothing about the pages. A crawler that looks after what an editor has
# removed may meet as many.
CLIENT_PAGES_MAX: Final = 20
# Clients whose refusals are counted; the oldest is forgotten first.
CLIENTS_MAX: Final = 1024
# So long after another client's good answer one client's refusal is not enough. Pages that anybody
# reads every few seconds cannot be hidden by one client; who has had a page taken down for what is
# on it waits ten seconds more, if anything, and any second visitor ends that.
DOUBT_S: Final = 10.0
# Pages in doubt, and the longest key that is remembered with one: half a megabyte. The oldest doubt
# is forgotten first, and its page stays; the next refusal is judged anew.
DOUBTS_MAX: Final = 512
DOUBT_KEY_BYTES_MAX: Final = 1024

# So many pages that one client was refused and others were then given say that it is shut out: an
# editor who shows again what was hidden does that with one or two.
REFUTED_MAX: Final = 3
# Hidden pages that are looked at in one second for that: half a millisecond.
LOOKED_AT_MAX: Final = 256


class Doubt(NamedTuple):
    """A refusal that is not believed yet, of a page that is stored for everyone."""

    at: float
    client: int
    variant_key: bytes  # Identity.variant_key and Identity.asked of the request
    asked: int


class Withdrawals:
    """Judges refusals of stored pages, and removes them from the store.

    Whoever takes an answer adds to `confirmed`, or calls `refused`. Time is the caller's:
    `advance` once a second.
    """

    __slots__ = (
        "_doubts",
        "_hidden",
        "_looked_at",
        "_marks",
        "_pages",
        "_refuted",
        "_run",
        "_run_at",
        "_run_confirmed",
        "_store",
        "clients",
        "confirmed",
        "mass",
    )

    def __init__(self, store: ResponseStore, now: float) -> None:
        self._store = store
        self.confirmed = 0  # good answers to GETs that had a stored response, since the start
        # The same at the ends of the last seconds, oldest first: what the window began with.
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])
        self._pages: OrderedDict[int, float] = OrderedDict()  # refused, and when; oldest first
        # Pages refused since the last good answer, however long ago.
        self._run = 0
        self._run_at = now
        self._run_confirmed = 0
        self._hidden: deque[tuple[int, Withdrawn]] = deque()  # by which client's refusal
        self._doubts: OrderedDict[bytes, Doubt] = OrderedDict()  # by key; oldest first
        # By client: so many of the pages refused to it others were given, and when; oldest first.
        self._refuted: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._looked_at = 0  # of what is hidden, the place where to look on
        self.clients: OrderedDict[int, int] = OrderedDict()  # refused to each, in a row
        self.mass = False  # so many at present that nothing is taken back

    @property
    def pages(self) -> int:
        """How many pages were refused lately."""
        return len(self._pages)

    @property
    def recent(self) -> int:
        """How many GETs that had a stored response were answered lately, refusals included."""
        return self.confirmed - self._marks[0][1] + len(self._pages)

    def answered_well(self, client: int) -> None:
        """A client has got a good answer: it is not shut out."""
        self.clients.pop(client, None)

    def refused(
        self, identity: Identity, status: int, state: State, client: int, now: float
    ) -> bool:
        """Take in a 4xx in answer to a GET; whether something stored was taken back.

        Args:
            client: A number for who asked; 0 if that is not known.
        """
        if state is State.OPEN or state is State.HALF_OPEN:
            return False
        # It speaks of what would have been shown for it and of nothing else: a stranger may get any
        # page refused with a field that nobody else sends.
        keys = [*identity.readable]
        if status in _GONE and identity.public_key is not None:
            keys.append((identity.public_key, 0))
        keys = [
            (key, generation)
            for key, generation in keys
            if self._store.taken_back.holds(key, generation, identity.variant_key, identity.asked)
        ]
        if not keys:
            return False
        if client and self._is_shut_out(client):
            return False
        self._count(hash(identity.url), now)
        if self.mass or (status not in _GONE and status not in _DENIED):
            return False
        believed = [
            (key, generation)
            for key, generation in keys
            if key_parts(key)[0] or self._is_believed(key, identity, client, now)
        ]
        for key, generation in believed:
            self._hide(key, generation, identity.asked, client, now)
        return bool(believed)

    def _hide(self, key: bytes, generation: int, asked: int, client: int, now: float) -> None:
        withdrawn = self._store.taken_back.withdraw(key, now, generation, asked)
        if withdrawn is not None:
            self._hidden.append((client, withdrawn))
        while len(self._hidden) > HIDDEN_MAX:
            self._store.taken_back.discard(self._hidden.popleft()[1])

    def _is_believed(self, key: bytes, identity: Identity, client: int, now: float) -> bool:
        """Return whether a refusal takes back at once what is stored for everyone."""
        good_at, others_at = self._store.taken_back.last_good(key, identity.variant_key, client)
        doubt = self._doubts.get(key)
        if doubt is not None and doubt.at >= good_at and doubt.client != client:
            del self._doubts[key]
            return True
        if now - others_at >= DOUBT_S and not self._is_refuted(client):
            self._doubts.pop(key, None)
            return True
        if (doubt is None or doubt.at < good_at) and len(key) <= DOUBT_KEY_BYTES_MAX:
            self._store.taken_back.refuse_late(key, now)
            self._doubts[key] = Doubt(now, client, identity.variant_key, identity.asked)
            self._doubts.move_to_end(key)
            if len(self._doubts) > DOUBTS_MAX:
                self._doubts.popitem(last=False)
        return False

    def _end_doubts(self, now: float) -> None:
        """Settle the doubts that good answers or time have settled."""
        for key, doubt in [*self._doubts.items()]:
            good_at, others_at = self._store.taken_back.last_good(
                key, doubt.variant_key, doubt.client
            )
            if good_at > doubt.at:
                del self._doubts[key]
                if others_at > doubt.at:
                    self._refute(doubt.client, now)
            elif now - others_at >= DOUBT_S:
                del self._doubts[key]
                if not self._is_refuted(doubt.client):
                    self._hide(key, 0, doubt.asked, doubt.client, now)

    def _is_refuted(self, client: int) -> bool:
        return client in self._refuted and self._refuted[client][0] >= REFUTED_MAX

    def _refute(self, client: int, now: float) -> None:
        """Note that others are given a page which was refused to a client."""
        count = self._refuted.pop(client, (0, now))[0] + 1
        self._refuted[client] = count, now
        if len(self._refuted) > CLIENTS_MAX:
            self._refuted.popitem(last=False)
        if count == REFUTED_MAX:
            self._give_back(client, -inf)

    def _look_at_hidden(self, now: float) -> None:
        """Look at some of what is hidden: is it given to others again?"""
        hidden, at = self._hidden, self._looked_at
        some = list(islice(hidden, at, at + LOOKED_AT_MAX))
        self._looked_at = at + LOOKED_AT_MAX if at + LOOKED_AT_MAX < len(hidden) else 0
        for client, withdrawn in some:
            if client and self._store.taken_back.given_to_others(withdrawn, client):
                hidden.remove((client, withdrawn))
                self._store.taken_back.discard(withdrawn)
                self._refute(client, now)
                if hidden is not self._hidden:
                    break  # much of it was given back

    def _is_shut_out(self, client: int) -> bool:
        refusals = self.clients[client] = self.clients.get(client, 0) + 1
        if len(self.clients) > CLIENTS_MAX:
            self.clients.popitem(last=False)
        if refusals == CLIENT_PAGES_MAX + 1:
            self._give_back(client, -inf)
            for key in [key for key, doubt in self._doubts.items() if doubt.client == client]:
                del self._doubts[key]
        return refusals > CLIENT_PAGES_MAX

    def _count(self, page: int, now: float) -> None:
        if self._run_confirmed != self.confirmed:
            self._run, self._run_at, self._run_confirmed = 0, now, self.confirmed
        if page not in self._pages:
            self._run += 1
        self._pages[page] = now
        self._pages.move_to_end(page)
        if len(self._pages) > PAGES_MAX:
            self._pages.popitem(last=False)
        self._judge(now)

    def _judge(self, now: float) -> None:
        pages = len(self._pages)
        run = self._run if self._run_confirmed == self.confirmed else 0
        before, self.mass = (
            self.mass,
            (max(pages, run) >= MASS_PAGES_MIN and pages > MASS_SHARE * self.recent),
        )
        if self.mass and not before:
            since = self._marks[0][0]
            if run >= MASS_PAGES_MIN:
                since = min(since, self._run_at)
            self._give_back(0, since)
            self._doubts.clear()

    def _give_back(self, client: int, since: float) -> None:
        """Give back what was hidden since then, by one client's refusals or (0) by anybody's."""
        kept: deque[tuple[int, Withdrawn]] = deque()
        for one in self._hidden:
            who, withdrawn = one
            if withdrawn.at >= since and (not client or who == client):
                self._store.taken_back.restore(withdrawn)
            else:
                kept.append(one)
        self._hidden = kept

    def advance(self, now: float, state: State) -> None:
        """Forget what is older than the window, and remove what has been hidden for long."""
        marks, pages = self._marks, self._pages
        marks.append((now, self.confirmed))
        while marks[0][0] < now - WINDOW_S:
            marks.popleft()
        while pages and next(iter(pages.values())) < now - WINDOW_S:
            pages.popitem(last=False)
        if pages or self.mass:
            self._judge(now)
        if self._doubts and state is not State.OPEN and state is not State.HALF_OPEN:
            self._end_doubts(now)
        while self._refuted and next(iter(self._refuted.values()))[1] < now - HIDDEN_S:
            self._refuted.popitem(last=False)
        hidden = self._hidden
        while hidden and hidden[0][1].at < now - HIDDEN_S:
            self._store.taken_back.discard(hidden.popleft()[1])
        if hidden:
            self._look_at_hidden(now)

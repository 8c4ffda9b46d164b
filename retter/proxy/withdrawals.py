"""What the application has taken back: it refuses a page that was good (401, 403, 404, 410).

Such a page is not the last good answer any more: an editor has hidden it, a credential has been
revoked (RFC 9111 section 4.3.3: a full response other than a 5xx takes the place of what is
stored). So the stored response goes, with all variants and forms.

It stays while the circuit is open or half-open, and when very many pages are refused together: that
is a broken deployment and no editor. Since that shows only after some pages, what has been taken
back is hidden first and removed a minute later, and a mass gives it back.
"""

from collections import OrderedDict, deque
from math import inf
from typing import Final

from retter.breaker import State
from retter.store.policy import Identity
from retter.store.store import ResponseStore, Withdrawn

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


class Withdrawals:
    """Judges refusals of stored pages, and removes them from the store.

    Whoever takes an answer adds to `confirmed`, or calls `refused`. Time is the caller's:
    `advance` once a second.
    """

    __slots__ = (
        "_hidden",
        "_marks",
        "_pages",
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
            if self._store.holds(key, generation, identity.shape)
        ]
        if not keys:
            return False
        if client and self._is_shut_out(client):
            return False
        self._count(hash(identity.url), now)
        if self.mass or (status not in _GONE and status not in _DENIED):
            return False
        for key, generation in keys:
            if (withdrawn := self._store.withdraw(key, now, generation)) is not None:
                self._hidden.append((client, withdrawn))
        while len(self._hidden) > HIDDEN_MAX:
            self._store.discard(self._hidden.popleft()[1])
        return True

    def _is_shut_out(self, client: int) -> bool:
        refusals = self.clients[client] = self.clients.get(client, 0) + 1
        if len(self.clients) > CLIENTS_MAX:
            self.clients.popitem(last=False)
        if refusals == CLIENT_PAGES_MAX + 1:
            self._give_back(client, -inf)
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

    def _give_back(self, client: int, since: float) -> None:
        """Give back what was hidden since then, by one client's refusals or (0) by anybody's."""
        kept: deque[tuple[int, Withdrawn]] = deque()
        for one in self._hidden:
            who, withdrawn = one
            if withdrawn.at >= since and (not client or who == client):
                self._store.restore(withdrawn)
            else:
                kept.append(one)
        self._hidden = kept

    def advance(self, now: float) -> None:
        """Forget what is older than the window, and remove what has been hidden for long."""
        marks, pages, hidden = self._marks, self._pages, self._hidden
        marks.append((now, self.confirmed))
        while marks[0][0] < now - WINDOW_S:
            marks.popleft()
        while pages and next(iter(pages.values())) < now - WINDOW_S:
            pages.popitem(last=False)
        if pages or self.mass:
            self._judge(now)
        while hidden and hidden[0][1].at < now - HIDDEN_S:
            self._store.discard(hidden.popleft()[1])

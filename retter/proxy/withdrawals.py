"""Withdrawals: the application refuses a page that was good (401, 403, 404, 410, or a redirect to a
login, which counts as a 401).

Such a page must not be shown any more: an editor has hidden it, or a credential was revoked (RFC
9111 section 4.3.3: a full response other than a 5xx replaces the stored one). So the stored
response is removed, with all variants and forms.

A refusal may concern only its client: a firewall blocks its address, or a plugin its User-Agent or
Referer. So a public response, or one of visitors who share their cookies (`lang=de`), is only
doubted at first if another client got a good response to the same URL within DOUBT_S. The doubt
ends with the next good response (the page exists), with the refusal of another client (it does
not), or DOUBT_S after that good response (nobody has got the page since). So a withdrawn page is
shown from the store for at most DOUBT_S longer. While the circuit is open, no doubt ends by time,
since nobody can get a good response. If addresses are not known, all clients count as one, and
nothing is doubted.

A page that nobody else has read for longer is withdrawn by one client's refusal. If others then get
three such pages within a minute, the refusals concerned only that client: the pages are restored,
and for a minute its refusals alone withdraw nothing.

If a rule such as `--ignore-query` makes one URL of many, the application may refuse one of them
(`?page=9999`, a foreign Host) and still serve the others. So a refusal withdraws the response to
the same host and target. It withdraws the response to any of them if the request had nothing to
ignore.

Nothing is withdrawn while the circuit is open or half-open, nor when very many pages are refused
together: that is a broken deployment and not an editor. This is known only after some pages. So a
withdrawn response is hidden first and removed a minute later, and mass refusals restore it.
"""

from collections import OrderedDict, deque
from itertools import islice
from math import inf
from typing import Final, NamedTuple

from retter.breaker import State
from retter.store.policy import Identity, OwnerClass, key_parts
from retter.store.store import ResponseStore
from retter.store.taken_back import Withdrawn

# The page is gone for everybody.
_GONE: Final = frozenset((404, 410))
# The page is denied to this visitor, and perhaps to others.
_UNAUTHORIZED: Final = 401
_DENIED: Final = frozenset((_UNAUTHORIZED, 403))

# Refused pages and good responses are compared within this many seconds.
WINDOW_S: Final = 10.0
# Refusals are mass refusals above this share of the GETs that had a stored response, ...
MASS_SHARE: Final = 0.2
# ... and from this number of refused pages on. So an editor of a site with three visitors can
# withdraw an article and its pictures. Without other requests, pages count beyond the window too.
MASS_PAGES_MIN: Final = 5
# Number of refused pages in the window that are distinguished. A thousand of them are mass
# refusals, or the site is very large.
PAGES_MAX: Final = 1024
# A hidden response can be restored for this long, and is then removed. On a quiet site, five pages
# are refused within this time.
HIDDEN_S: Final = 60.0
# Number of hidden responses: each needs a few hundred bytes. If there are more, the oldest are
# removed at once and cannot be restored.
HIDDEN_MAX: Final = 4096
# Pages refused to one client in a row, without a good response. More of them mean that the client
# is blocked (by a firewall plugin), and say nothing about the pages. A crawler that checks pages
# that an editor has removed may get as many.
CLIENT_PAGES_MAX: Final = 20
# Number of clients whose refusals are counted; the oldest is forgotten first.
CLIENTS_MAX: Final = 1024
# For this long after another client's good response, one client's refusal is not enough. So one
# client cannot hide a page that others read every few seconds. A page that was removed on purpose
# is shown ten seconds longer at most, or until a second visitor is refused.
DOUBT_S: Final = 10.0
# Number of doubted pages, and the longest key of one: half a megabyte in total. The oldest doubt is
# forgotten first. Its page stays, and the next refusal is judged anew.
DOUBTS_MAX: Final = 512
DOUBT_KEY_BYTES_MAX: Final = 1024

# If others get this many pages that were refused to one client, that client is blocked. An editor
# who publishes hidden pages again does so with one or two of them.
REFUTED_MAX: Final = 3
# Number of hidden pages that are checked for that in one second: it takes half a millisecond.
LOOKED_AT_MAX: Final = 256


class Doubt(NamedTuple):
    """A refusal of a page of many visitors that is not believed yet."""

    at: float
    client: int
    variant_key: bytes  # Identity.variant_key and Identity.asked of the request
    asked: int


class Withdrawals:
    """Judges refusals of stored pages, and removes them from the store.

    For each response, its owner adds to `confirmed` or calls `refused`. `advance` is called once a
    second.
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
        self.confirmed = 0  # good responses to GETs that had a stored response, since the start
        # The values of `confirmed` at the ends of the last seconds, oldest first.
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])
        self._pages: OrderedDict[int, float] = OrderedDict()  # refused, and when; oldest first
        # Pages refused since the last good response, however long ago.
        self._run = 0
        self._run_at = now
        self._run_confirmed = 0
        self._hidden: deque[tuple[int, Withdrawn]] = deque()  # with the refused client
        self._doubts: OrderedDict[bytes, Doubt] = OrderedDict()  # by key; oldest first
        # By client: the number of its refused pages that others got, and when; oldest first.
        self._refuted: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._looked_at = 0  # the index of the next hidden page to check
        self.clients: OrderedDict[int, int] = OrderedDict()  # refusals in a row, by client
        self.mass = False  # mass refusals at present: nothing is withdrawn

    @property
    def pages(self) -> int:
        """The number of pages that were refused in the window."""
        return len(self._pages)

    @property
    def recent(self) -> int:
        """The number of GETs with a stored response in the window, including refusals."""
        return self.confirmed - self._marks[0][1] + len(self._pages)

    def answered_well(self, client: int) -> None:
        """Note a good response to a client: it is not blocked."""
        self.clients.pop(client, None)

    def refused(
        self, identity: Identity, status: int, state: State, client: int, now: float
    ) -> bool:
        """Judge a 4xx in response to a GET; return whether a stored response was withdrawn.

        Args:
            client: The number of the client; 0 if that is not known.
        """
        if state is State.OPEN or state is State.HALF_OPEN:
            return False
        # A refusal concerns only the stored response that this request would have got: with a field
        # that nobody else sends, a stranger can make the application refuse any page.
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
        # Without a session, the same cookies may be those of many visitors, and so may a field with
        # the same value in all requests of a program. But a 401 is about the credential.
        is_own = identity.session or (
            identity.owner_class is OwnerClass.CREDENTIAL and status == _UNAUTHORIZED
        )
        believed = [
            (key, generation)
            for key, generation in keys
            if (is_own and key_parts(key)[0]) or self._is_believed(key, identity, client, now)
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
        """Return whether a refusal withdraws a response of many visitors at once."""
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
        """End doubts after a good response or after their time."""
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
        """Note that others got a page that was refused to a client."""
        count = self._refuted.pop(client, (0, now))[0] + 1
        self._refuted[client] = count, now
        if len(self._refuted) > CLIENTS_MAX:
            self._refuted.popitem(last=False)
        if count == REFUTED_MAX:
            self._give_back(client, -inf)

    def _look_at_hidden(self, now: float) -> None:
        """Check some hidden pages: do other clients get them again?"""
        hidden, at = self._hidden, self._looked_at
        some = list(islice(hidden, at, at + LOOKED_AT_MAX))
        self._looked_at = at + LOOKED_AT_MAX if at + LOOKED_AT_MAX < len(hidden) else 0
        for client, withdrawn in some:
            if client and self._store.taken_back.given_to_others(withdrawn, client):
                hidden.remove((client, withdrawn))
                self._store.taken_back.discard(withdrawn)
                self._refute(client, now)
                if hidden is not self._hidden:
                    break  # many were restored

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
        """Restore pages hidden since then, by one client's refusals or (0) by anybody's."""
        kept: deque[tuple[int, Withdrawn]] = deque()
        for one in self._hidden:
            who, withdrawn = one
            if withdrawn.at >= since and (not client or who == client):
                self._store.taken_back.restore(withdrawn)
            else:
                kept.append(one)
        self._hidden = kept

    def advance(self, now: float, state: State) -> None:
        """Forget values before the window, and remove pages that have been hidden for long."""
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

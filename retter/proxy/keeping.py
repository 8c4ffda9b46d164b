"""Learns sessions from responses, and stores them.

An exchange passes the head of a response as soon as it has arrived (`learn_cookies`), and the whole
response at its end (`keep`). policy.py and personal.py decide what may be stored, and for whom.
"""

from collections.abc import Callable
from typing import NamedTuple

from retter.compression.coding import coding_to_decode, decoded_bytes_max, plain_body
from retter.compression.decoding import JOBS_MAX, decoded_at_once
from retter.compression.workers import Workers
from retter.http.message import RequestHead, ResponseHead
from retter.store.hints import Hints
from retter.store.owner import OwnerRules
from retter.store.personal import gives_cookie, is_personal, sets_cookie
from retter.store.policy import Identity, asks_for_change, ends_session, is_of_one, may_roll
from retter.store.set_cookie import learn, marks_given, marks_set
from retter.store.store import ResponseStore


class Kept(NamedTuple):
    """A whole response to store."""

    identity: Identity
    request: RequestHead
    head: ResponseHead
    body: bytes
    requested_at: float
    incomplete: bool
    client: int


class Keeper:
    """Keeps the facts and pages that the application's answers bring.

    Args:
        hints: Counts the sessions that change.
        forget: Called when the meaning of Cookie lines has changed: they must be read again.
        workers: Decode large bodies.
        time: The loop's clock, monotonic seconds.
    """

    __slots__ = ("_forget", "_hints", "_rules", "_store", "_time", "workers")

    def __init__(
        self,
        store: ResponseStore,
        rules: OwnerRules,
        forget: Callable[[], None],
        hints: Hints,
        workers: Workers,
        time: Callable[[], float],
    ) -> None:
        self._store = store
        self._rules = rules
        self._forget = forget
        self._hints = hints
        store.lineages = rules.lineages
        self.workers = workers
        self._time = time

    def configure(self, rules: OwnerRules) -> None:
        """Use other rules from now on."""
        self._rules = rules

    def learn_cookies(
        self, identity: Identity, request: RequestHead, head: ResponseHead, now: float
    ) -> None:
        """Learn which sessions a response begins or ends (Set-Cookie, Clear-Site-Data).

        The end of a session drops all that its owner has stored.
        """
        rules = self._rules
        ended = ends_session(identity, request, head, rules)
        if ended:
            self._store.invalidation.drop_owner(
                identity.owner, now, identity.marks + marks_set(head, rules)
            )
            self._hints.replaced(request, head, rules, now)
        elif marks := marks_given(request, head, rules):
            self._store.invalidation.drop_owner(b"", now, marks)
        if learn(request, head, rules, now, may_roll=not ended and may_roll(identity)):
            self._forget()

    def learn_target(self, identity: Identity, request: RequestHead, now: float) -> None:
        """Drop the pages of a visitor if the target looks like a login or logout.

        Args:
            request: One that may change something. It was answered, or its result is not known.
        """
        if asks_for_change(identity, request, self._rules):
            self._store.invalidation.drop_owner(identity.owner, now, identity.marks)

    def learn_body(self, identity: Identity, request: RequestHead, now: float) -> None:
        """Drop the pages of a visitor who has logged in or out: the next one may be another."""
        if is_of_one(identity, request, self._rules):
            self._store.invalidation.drop_owner(identity.owner, now, identity.marks)

    def keep(
        self,
        identity: Identity,
        request: RequestHead,
        head: ResponseHead,
        body: bytes,
        requested_at: float,
        now: float,
        client: int,
    ) -> bool:
        """Store a whole answer that `storable` has allowed.

        False if that is not done, or not yet: a coded body is decoded first, to search it for
        personal content; a large one in the thread.
        """
        rules = self._rules
        if identity.session:
            has_more = identity.owner in self._store.shelves.owner_keys
            rules.seen.known.answered(identity.marks, now, has_more)
        if not head.set_cookies:
            return self._store.put(identity, request, head, body, requested_at, now, False, client)
        incomplete = gives_cookie(request, head, rules)
        kept = Kept(identity, request, head, body, requested_at, incomplete, client)
        if not identity.session and sets_cookie(head, rules):
            coding = head.combined(b"content-encoding")
            text = decoded_at_once(body, coding)
            if text is None:
                self._look_into(kept, coding)
                return False
            if is_personal(request, head, text, rules):
                return False
        return self._put(kept, now)

    def _put(self, kept: Kept, now: float) -> bool:
        return self._store.put(
            kept.identity,
            kept.request,
            kept.head,
            kept.body,
            kept.requested_at,
            now,
            kept.incomplete,
            kept.client,
        )

    def _look_into(self, kept: Kept, coding: bytes) -> None:
        """Store a response if there is no personal content in its coded body.

        If the body cannot be decoded, or the thread is busy, the response is not stored.
        """
        if not coding_to_decode(coding) or self.workers.waiting >= JOBS_MAX:
            return
        rules = self._rules
        body = kept.body

        def job() -> bytes:
            text = plain_body(body, coding, decoded_bytes_max(body))
            personal = text is None or is_personal(kept.request, kept.head, text, rules)
            return b"personal" if personal else b""

        def done(found: bytes | None) -> None:
            if found == b"" and self._rules is rules:
                self._put(kept, self._time())

        self.workers.submit(job, done)

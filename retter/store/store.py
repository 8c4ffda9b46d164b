"""The last good responses, in memory, under one byte budget.

A key consists of an owner and a URL (policy.py). Under one key there are up to `variants_max`
responses, which differ in the fields that `Vary` names. Equal bodies are kept once. Entries that
were requested only once are evicted first (s3fifo.py). One owner (other than everyone) never holds
more than its share, so a visitor who reads the whole site does not evict the pages of all others.

This module looks up and stores responses. The other tasks are in other modules:

- accounting.py keeps and counts the entries.
- selection.py selects the variant for a request.
- replacement.py decides which entries a new one replaces.
- invalidation.py removes entries before they expire.
- changes.py remembers changes that happen while a response is on its way.
- policy.py decides whether a response may be stored.
- conditional.py decides which part of a stored response a request gets.

`now` is monotonic seconds everywhere.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from retter.http.memo import HeadNotes
from retter.http.message import RequestHead, ResponseHead
from retter.http.variants import (
    ORIGIN_MARK,
    key_of_other_browsers,
    may_accept_anything,
    soft_of,
)
from retter.store.accounting import Shelves
from retter.store.changes import Changes
from retter.store.forms import StoredForms
from retter.store.invalidation import Invalidation
from retter.store.lineage import Lineages
from retter.store.personal import (
    gives_token,
    links_session,
    reflects_referer,
    shows_its_client,
    wrote_to_be_shown,
)
from retter.store.policy import Identity, StorePolicy, key_parts
from retter.store.record import (
    AGE,
    AGE_MAX,
    ASKED,
    BODY,
    ENTRY_OVERHEAD_BYTES,
    GIVEN_TO,
    HEAD,
    INCOMPLETE,
    NEVER,
    OTHERS_AT,
    STATUS,
    STORED_AT,
    SUPERSEDED,
    VARIANT_KEY,
    VARY_NAMES,
    WITHDRAWN,
    Facts,
    Record,
    StoredResponse,
    as_stored,
    facts_of,
    validates,
)
from retter.store.refreshing import refreshed
from retter.store.replacement import given_again, victims, without_replaced
from retter.store.rules import MIB, StoreRules, StoreStats
from retter.store.selection import hashed_vary, select_or_near, selected, selected_or_near
from retter.store.taken_back import TakenBack, others_at

if TYPE_CHECKING:
    from retter.store.write_behind import Found, WriteBehind  # for a disk alone

__all__ = ["ResponseStore", "StoreRules", "StoredResponse"]

# If an equal response is stored again, the entry is written to disk again only in the next step of
# this length. So unchanged entries cause few writes, and after a restart an Age is too high by at
# most this time. If entries are not served that long, a step is a quarter of the time for which
# they are.
STEP_S: Final = 600.0
STEPS_MIN: Final = 4
STEP_S_MIN: Final = 1.0

# The budget never becomes smaller than this, however often memory runs out: some dozens of pages.
KEPT_BYTES_MIN: Final = MIB

# Responses that are stored between two looks of the garbage collector at what was made since. Each
# is two tuples, which the collector looks at once. It would do so when there are 10,000 objects
# more than before; but a response that replaces another adds none, so there may be 100,000 to look
# at then, and none of them is in a cache any more: 17 ms with 58,000 entries, during which nobody
# is answered, and 1.1 us for each request. After so few it takes 0.05 ms and 0.3 us.
YOUNG_MAX: Final = 64


def _step_s(age_max_s: float) -> float:
    return min(STEP_S, max(STEP_S_MIN, age_max_s / STEPS_MIN))


def _none_of_coded(body: bytes, coding: bytes) -> bytes | None:
    return None if coding else body


class ResponseStore:
    """Stored responses by owner and URL."""

    def __init__(self, rules: StoreRules) -> None:
        self._facts: HeadNotes[ResponseHead, tuple[Facts | None]] = HeadNotes()
        self._rules = rules
        self._shared = rules.policy is StorePolicy.RFC9111
        # 0: each response has its own (RFC 9111).
        self._step_s = 0.0 if self._shared else _step_s(rules.max_stale_s)
        self.shelves = Shelves(rules.bytes_max, int(rules.bytes_max * rules.owner_share))
        self._secret = rules.secret
        self._public_secret = rules.public_secret or rules.secret
        self._changes = Changes()
        self._counts = StoreStats(bytes_max=rules.bytes_max)
        self.forms = StoredForms(self.shelves)
        self.taken_back = TakenBack(self.shelves, self._changes, self._counts)
        self.invalidation = Invalidation(self.shelves, self._changes, self._counts)
        self.lineages: Lineages | None = None  # sessions whose cookie value changes
        self.behind: WriteBehind | None = None  # a disk
        # The last entry that was read from the disk and not copied to memory: its key, the entry,
        # and how many removals there had been by then (write_behind.py).
        self.borrowed: tuple[bytes, Found, int] | None = None
        # Responses that were equal to stored ones: those that replaced them, and those that came at
        # the same moment (`put`).
        self._again = self._just_again = 0
        # Lets the garbage collector look at young objects (process/memory.py).
        self.look_through: Callable[[], None] | None = None
        # Returns a body without its content coding, None if that would take long.
        self.plain_body: Callable[[bytes, bytes], bytes | None] = _none_of_coded

    def reconfigure(self, rules: StoreRules) -> None:
        """Apply other limits. The secret and the policy never change.

        If the budget is smaller now, the excess is evicted tick by tick. A smaller `max_stale_s`
        applies to what is stored at once, a larger one to responses that are stored from now on.
        """
        if rules.max_stale_s < self._rules.max_stale_s:
            self._bound_ages(rules.max_stale_s)
        self._facts.known.clear()  # they depend on the rules too
        self._rules = rules
        self._step_s = 0.0 if self._shared else _step_s(rules.max_stale_s)
        self._counts.bytes_max = rules.bytes_max
        self.shelves.resize(rules.bytes_max, int(rules.bytes_max * rules.owner_share))

    def _bound_ages(self, age_max_s: float) -> None:
        """Lower the age up to which each stored response may be served, but raise none.

        It takes 9 ms for 10,000 responses, once for such a reload; to compare with the rules at
        each look-up would cost every request.
        """
        slots = self.shelves.slots
        for key, slot in slots.items():
            if any(one[AGE_MAX] > age_max_s for one in slot):
                slots[key] = tuple(
                    [
                        (*one[:AGE_MAX], age_max_s, *one[AGE_MAX + 1 :])
                        if one[AGE_MAX] > age_max_s  # the others stay the same objects
                        else one
                        for one in slot
                    ]
                )

    # -- Finding

    def lookup(
        self,
        identity: Identity,
        request: RequestHead,
        now: float,
        *,
        superseded: bool = False,
        peeking: bool = False,
    ) -> StoredResponse | None:
        """Return the result of `find` with named fields."""
        entry = self.find(identity, request, now, superseded, peeking)
        return None if entry is None else as_stored(entry)

    def find(
        self,
        identity: Identity,
        request: RequestHead,
        now: float,
        superseded: bool = False,
        peeking: bool = False,
    ) -> Record | None:
        """Return the response for a request: the owner's own, else everyone's if it is a 200.

        If the owner's own response is superseded and may not be used, nothing is returned: a
        client that has just changed a page does not get the anonymous version. Under the rules for
        shared caches, a superseded response is never used again (RFC 9111 section 4.4).

        Args:
            superseded: Whether a response that an unsafe method has invalidated may be used. It
                may if the application has failed, because it is better than an error. It may not
                if the purpose is only to spare the application work.
            peeking: The result does not answer a request. The look-up is not counted, and it does
                not change which response is evicted next.
        """
        if not (identity.stands_in if superseded else identity.lookup):
            return None
        if identity.rolling is not None:
            return self._find_rolling(identity, request, now, superseded, peeking)
        key, shelves, borrowed = identity.key, self.shelves, False
        slot = shelves.slots.get(key)
        if slot is None and self.behind is not None:
            slot = self._borrow(self.behind, key, now)
            borrowed = self.borrowed is not None
        if slot is not None:
            newest = slot[0]
            entry: Record | None = newest
            if newest[VARY_NAMES] or len(slot) > 1 or newest[VARIANT_KEY] != identity.variant_key:
                secret = self._secret if identity.owner else self._public_secret
                entry = select_or_near(slot, identity, request, secret, 0, self._shared)
                if entry is not None and entry is not newest and not (peeking or borrowed):
                    shelves.bring_forward(key, entry)
            # The same as StoredResponse.age. Access by name costs three times as much as by index,
            # and a forwarded request needs only the age.
            if entry is not None and now - entry[STORED_AT] + entry[AGE] <= entry[AGE_MAX]:
                if (entry[SUPERSEDED] or entry[INCOMPLETE]) and (
                    not superseded or (self._shared and entry[SUPERSEDED])
                ):
                    self._counts.not_found += not peeking
                    return None
                if peeking:
                    return entry
                if not borrowed:
                    shelves.queues.asked[key] = None
                    keys = shelves.owner_keys[identity.owner] if identity.owner else b""
                    if isinstance(keys, dict):  # more than this one
                        del keys[key]
                        keys[key] = None
                self._counts.found_own += 1
                return entry
            if entry is not None and entry[AGE_MAX] != WITHDRAWN and not (peeking or borrowed):
                self._expire(key, entry, now)
        public_key = identity.public_key
        if public_key is not None and (public_key in shelves.slots or self.behind is not None):
            return self._find_public(public_key, identity, request, now, superseded, peeking)
        self._counts.not_found += not peeking
        return None

    def _find_rolling(
        self,
        identity: Identity,
        request: RequestHead,
        now: float,
        superseded: bool,
        peeking: bool,
    ) -> Record | None:
        """Do the same as `find` for a session that has several values, old and new."""
        for key, generation in identity.readable:
            slot = self._slot(key, now)
            entry = (
                None
                if slot is None
                else select_or_near(slot, identity, request, self._secret, generation, self._shared)
            )
            if entry is None or now - entry[STORED_AT] + entry[AGE] > entry[AGE_MAX]:
                continue
            if (entry[SUPERSEDED] or entry[INCOMPLETE]) and (
                not superseded or (self._shared and entry[SUPERSEDED])
            ):
                self._counts.not_found += not peeking
                return None
            if peeking:
                return entry
            self.shelves.touch(key, key_parts(key)[0])
            self._counts.found_own += 1
            return entry
        if identity.public_key is not None:
            return self._find_public(
                identity.public_key, identity, request, now, superseded, peeking
            )
        self._counts.not_found += not peeking
        return None

    def _find_public(
        self,
        key: bytes,
        identity: Identity,
        request: RequestHead,
        now: float,
        superseded: bool,
        peeking: bool,
    ) -> Record | None:
        slot, borrowed = self.shelves.slots.get(key), False
        if slot is None and self.behind is not None:
            slot = self._borrow(self.behind, key, now)
            borrowed = self.borrowed is not None
        newest: Record | None = None
        entry: Record | None = None
        if slot is not None:
            entry = newest = slot[0]
            if newest[VARY_NAMES] or len(slot) > 1 or newest[VARIANT_KEY] != identity.variant_key:
                entry = select_or_near(
                    slot, identity, request, self._public_secret, 0, self._shared
                )
        if entry is not None:
            if now - entry[STORED_AT] + entry[AGE] > entry[AGE_MAX]:
                if entry[AGE_MAX] != WITHDRAWN and not (peeking or borrowed):
                    self._expire(key, entry, now)
            elif entry[STATUS] == 200 and (
                not (entry[SUPERSEDED] or entry[INCOMPLETE])
                or (superseded and not (self._shared and entry[SUPERSEDED]))
            ):
                if peeking:
                    return entry
                if not borrowed:
                    self.shelves.queues.asked[key] = None
                    if entry is not newest:
                        self.shelves.bring_forward(key, entry)
                self._counts.found_public += 1
                return entry
        self._counts.not_found += not peeking
        return None

    def _expire(self, key: bytes, record: Record, now: float) -> None:
        """Remove an entry that is too old to be served."""
        self.shelves.remove(key, record)
        self._counts.expired += 1
        self.shelves.tell(key, now)

    def has_for(self, identity: Identity, request: RequestHead, now: float) -> bool:
        """Return whether an entry is stored that this request selects, usable or not.

        It is the one that `peek` returns, unless that is withdrawn.
        """
        key, slots = identity.key, self.shelves.slots
        if self.behind is None and identity.rolling is None and key not in slots:
            # Nearly always only everyone's entries are there, of other variants. To see that here
            # takes a quarter of what `peek` takes.
            variant_key = identity.variant_key
            other = key_of_other_browsers(variant_key)
            for record in slots.get(identity.public_key or b"", ()):
                if record[VARIANT_KEY] == variant_key or record[VARIANT_KEY] == other:
                    break
            else:
                if not may_accept_anything(variant_key):
                    return False
        stored = self.peek(identity, request, now)[0]
        return stored is not None and stored.age_max_s != WITHDRAWN

    def peek(
        self, identity: Identity, request: RequestHead, now: float
    ) -> tuple[StoredResponse | None, bool]:
        """Return the entry for this request, usable or not, and whether it is everyone's.

        The caller describes the entry, or compares a new response with it. `find` decides whether
        the entry may be used. This method changes nothing.
        """
        own: StoredResponse | None = None
        secret = self._secret if identity.owner else self._public_secret
        for key, generation in identity.readable:
            own = (
                selected_or_near(
                    self._slot(key, now), identity, request, secret, generation, self._shared
                )
                or own
            )
            if own is not None and own.age(now) <= own.age_max_s:
                return own, not identity.owner
        slot = None if identity.public_key is None else self._slot(identity.public_key, now)
        public = selected_or_near(slot, identity, request, self._public_secret, 0, self._shared)
        if public is not None and public.status == 200 and public.age(now) <= public.age_max_s:
            return public, True
        return own, own is not None and not identity.owner

    # -- The disk behind the store

    def put_behind(self, behind: "WriteBehind | None") -> None:
        """Use a disk behind the memory: read missing entries from it, and write changes to it."""
        self.behind = self.shelves.behind = behind

    def _slot(self, key: bytes, now: float) -> tuple[Record, ...] | None:
        """Return the entries of a key, from memory or, if that takes no wait, from the disk."""
        slot = self.shelves.slots.get(key)
        if slot is None and self.behind is not None:
            slot = self._fetch(key, now)
        return slot

    def _fetch(self, key: bytes, now: float) -> tuple[Record, ...] | None:
        on_disk = None if self.behind is None else self.behind.fetch(key, now)
        if on_disk is None or not self.shelves.promote(key, on_disk):
            return None
        return self.shelves.slots.get(key)

    def _borrow(self, behind: "WriteBehind", key: bytes, now: float) -> tuple[Record, ...] | None:
        """Return the entries of a key from the disk, if that takes no wait.

        If there are any, `borrowed` says afterwards whether they were not copied to memory.

        They are copied to memory if they are read often, since to copy an entry and evict another
        one costs more than a few reads. Entries of which `find` may return none are copied at once:
        `is_doubtful` (learning.py) must know of them.
        """
        on_disk = behind.fetch(key, now)
        if on_disk is None:
            return None
        if on_disk.often and self.shelves.promote(key, on_disk):
            self.borrowed = None
            return self.shelves.slots.get(key)
        self.borrowed = (key, on_disk, behind.removed)
        return on_disk.slot

    def keep_borrowed(self, body: bytes) -> None:
        """Copy the entry with this body to memory if `find` has just read it from the disk.

        If anything was removed since then, it may have been this entry, so it is not copied.
        """
        if self.borrowed is None or self.behind is None:
            return
        (key, on_disk, removed), self.borrowed = self.borrowed, None
        if removed != self.behind.removed:
            return
        if any(one[BODY] is body for one in on_disk.slot):
            self.shelves.promote(key, on_disk)

    def forget_borrowed(self) -> None:
        """Do not copy what `find` has just read from the disk: it may have been removed."""
        self.borrowed = None

    def awaited_keys(self, identity: Identity) -> list[bytes]:
        """Return the keys under which the disk may have an answer to a request.

        The list is empty if the owner's own entry is in memory.
        """
        slots = self.shelves.slots
        if identity.rolling is not None:
            keys = [key for key, _ in identity.readable]
            if not slots.keys().isdisjoint(keys):
                return []
        elif identity.key in slots:
            return []
        else:
            keys = [identity.key]
        public = identity.public_key
        if public is not None and public not in slots:
            keys.append(public)
        return keys

    # -- Storing

    def put(
        self,
        identity: Identity,
        request: RequestHead,
        response: ResponseHead,
        body: bytes,
        requested_at: float,
        now: float,
        incomplete: bool = False,
        client: int = 0,
    ) -> bool:
        """Store a whole response that `storable` has allowed; return False if it is refused.

        It replaces the stored response that this request would have selected until now.

        Args:
            incomplete: The response sets a cookie that its client did not have.
            client: A number for the client; 0 if the client is not known.
        """
        late = requested_at <= self._changes.latest_at
        if (  # usually none of these is true
            late or response.status >= 300 or identity.rolling is not None
        ) and self._is_refused(identity, request, response, requested_at):
            self._counts.refused += 1
            return False
        key, shelves, counts = identity.key, self.shelves, self._counts
        slot = shelves.slots.get(key)
        if slot is not None and slot[0][STORED_AT] == now and not late:
            # In a rush on one page, answers come within one step of the event loop's clock (1 ms
            # with uvloop). What has just been stored is as good as what would be stored now: 113
            # instructions of the interpreter instead of 237. When this client and when another
            # one got the page last (taken_back.py) follows from it, too: both is now.
            newest = slot[0]
            if (
                newest[HEAD] is response.stored
                and newest[BODY] == body
                and (newest[GIVEN_TO] == client or newest[OTHERS_AT] == now)
                and newest[VARIANT_KEY] == identity.variant_key
                and newest[ASKED] == identity.asked
                and newest[INCOMPLETE] is incomplete
                and newest[AGE_MAX] != WITHDRAWN
                and not newest[VARY_NAMES]
                and len(slot) == 1
            ):
                self._just_again += 1
                return True
        known = self._facts.known.get(response)
        facts = self._facts_of(response) if known is None else known[0]
        if facts is None:
            counts.refused += 1
            return False
        superseded = late and self._changes.since(key, requested_at)
        if slot is None and self.behind is not None:
            slot = self._fetch(key, now)  # its other variants
        age_s = facts.received_age_s + now - requested_at
        if slot is not None:
            again = given_again(
                slot, identity, response, body, facts, age_s, now, superseded, incomplete, client
            )
            if again is not None:
                # It replaces the only response of its key.
                shelves.slots[key] = (again,)
                shelves.queues.asked[key] = None
                if owner := identity.owner:
                    keys = shelves.owner_keys[owner]
                    if isinstance(keys, dict):  # more than this one
                        del keys[key]
                        keys[key] = None
                number = self._again = self._again + 1
                if not number % YOUNG_MAX:
                    self._look_through()
                if self.behind is not None:
                    # It is written again only after the next step, so that its time on disk is not
                    # too old when it is read again.
                    old, step_s = slot[0], self._step_s or _step_s(again[AGE_MAX])
                    if (
                        now // step_s != old[STORED_AT] // step_s
                        or superseded is not old[SUPERSEDED]
                    ):
                        shelves.tell(key, now)
                return True
        return self._store_new(
            identity, request, response, facts, body, age_s, now, superseded, incomplete, client,
            slot,
        )  # fmt: skip

    def _is_refused(
        self, identity: Identity, request: RequestHead, response: ResponseHead, requested_at: float
    ) -> bool:
        """Return whether the response must not be stored, mostly because of a later change."""
        if response.status >= 300 and reflects_referer(request, response):
            return True
        if self._changes.forbid(identity.owner, identity.marks, identity.key, requested_at):
            return True
        rolling = identity.rolling
        return rolling is not None and (
            self.lineages is None or not self.lineages.may_store(rolling.value, requested_at)
        )

    def _facts_of(self, response: ResponseHead) -> Facts | None:
        """Read the fields of a response, once for all responses that share this head object."""
        facts = facts_of(response.fields, self._rules.max_stale_s, shared=self._shared)
        return self._facts.note(response, (facts,))[0]

    def _store_new(
        self,
        identity: Identity,
        request: RequestHead,
        response: ResponseHead,
        facts: Facts,
        body: bytes,
        age_s: float,
        now: float,
        superseded: bool,
        incomplete: bool,
        client: int,
        slot: tuple[Record, ...] | None,
    ) -> bool:
        """Store a response that is not stored yet, and remove the entries that it replaces."""
        key, owner, variant_key = identity.key, identity.owner, identity.variant_key
        shelves, secret = self.shelves, self._public_secret
        head, etag, last_modified = response.stored, facts.etag, facts.last_modified
        size = (  # entry_bytes, inlined
            ENTRY_OVERHEAD_BYTES
            + len(key) + len(head) + len(etag) + len(last_modified) + len(variant_key)
        )  # fmt: skip
        if not shelves.fits(owner, size + len(body)) or (
            # Others would get it: all who have no cookies, or the same ones (`lang=de`).
            not identity.session
            and self._is_of_one_visitor(request, response, body, facts.content_coding)
        ):
            self._counts.refused += 1
            return False
        generation = 0
        if owner:
            secret = self._secret
            if identity.rolling is not None:
                generation = identity.rolling.generation
        names = facts.vary_names
        if variant_key.startswith(ORIGIN_MARK) and not facts.any_origin and b"origin" not in names:
            names = (*names, b"origin")
        soft = request.soft or soft_of(request)
        body = shelves.acquire_body(body)  # first: releasing an equal body would free its forms
        others: tuple[Record, ...] = ()
        if slot is not None:
            others = without_replaced(
                shelves, slot, identity, request, response, body, soft, generation, secret
            )
            if others:
                others = self._with_room_for_one(others, owner, client)
        record: Record = (
            response.status,
            head,
            body,
            facts.content_coding,
            etag,
            last_modified,
            now,
            age_s,
            superseded,
            facts.no_store,
            facts.age_max_s,
            variant_key,
            names,
            hashed_vary(names, request, secret) if names else b"",
            facts.received_age_s,
            size,
            () if response.compressible else None,
            incomplete,
            not owner,
            soft,
            generation,
            client if others else 0,  # so that one client cannot evict others' entries
            client,
            NEVER if slot is None else others_at(slot, client),
            identity.asked,
        )
        shelves.insert(key, owner, others, record, size, identity.marks)
        stored = self._counts.stored = self._counts.stored + 1
        if not stored % YOUNG_MAX:
            self._look_through()
        if self.behind is not None:
            shelves.tell(key, now, (record, *others))
        return True

    def _look_through(self) -> None:
        """Let the garbage collector look at the latest entries while they are in a cache."""
        if self.look_through is not None:
            self.look_through()

    def _is_of_one_visitor(
        self, request: RequestHead, response: ResponseHead, body: bytes, coding: bytes
    ) -> bool:
        """Return whether a page has a text that its client chose, or leads into its session."""
        head = response.stored
        if gives_token(request, response):
            return True
        if wrote_to_be_shown(request) and self._shows_its_client(request, head, body, coding):
            return True
        # A coded page is not decoded for this alone: each new one would cost twice as much.
        leads = links_session(request, head, b"" if coding else body)
        return leads and request.first(b"authorization") is None

    def _shows_its_client(
        self, request: RequestHead, head: bytes, body: bytes, coding: bytes
    ) -> bool:
        if request.first(b"authorization") is not None:
            return False  # it is a secret, so nobody else gets the page
        text = self.plain_body(body, coding)
        return text is None or shows_its_client(request, text, head)

    def _with_room_for_one(
        self, others: tuple[Record, ...], owner: bytes, client: int
    ) -> tuple[Record, ...]:
        """Release variants of a key to make room for a new one of this client; return the rest."""
        for victim in victims(others, self._rules.variants_max, client):
            others = tuple([one for one in others if one is not victim])
            self.shelves.release(owner, victim)
            self._counts.evicted_variants += 1
        return others

    # -- Refreshing

    def refresh(
        self,
        identity: Identity,
        request: RequestHead,
        not_modified: ResponseHead,
        requested_at: float,
        now: float,
        client: int = 0,
    ) -> None:
        """Refresh the owner's own response by a 304 to a client's conditional GET.

        This is done only if the 304 validates that response (RFC 9111 section 4.3.4). The 304's
        ETag or Last-Modified must be equal to the stored one. If the 304 has neither, the only
        validator in the client's request must be equal. The comparison is exact, although the RFC
        lets a weak tag match more. Fields are updated as in section 3.2. Everyone's response is
        never refreshed by the 304 to another owner.
        """
        slot = self._slot(identity.key, now)
        generation = 0 if identity.rolling is None else identity.rolling.generation
        secret = self._secret if identity.owner else self._public_secret
        old = selected(slot, identity, request, secret, generation)
        if slot is None or old is None or not validates(request, not_modified, old):
            return
        superseded = old.superseded and self._changes.since(identity.key, requested_at)
        fresh = refreshed(
            old,
            identity,
            not_modified,
            requested_at,
            now,
            superseded=superseded,
            client=client,
            max_stale_s=self._rules.max_stale_s,
            shared=self._shared,
        )
        if fresh is None:
            self.shelves.remove(identity.key, old)
            self.shelves.tell(identity.key, now, removed=True)
            return
        self.shelves.replace(identity.key, old, fresh)
        self.shelves.touch(identity.key, identity.owner)
        self._counts.refreshed += 1
        self.shelves.tell(identity.key, now)
        self.shelves.make_room(identity.owner)

    # -- Memory

    def empty_and_shrink(self) -> int:
        """Drop everything, free it at once and lower the budget; return the number of entries.

        Called when memory has run out. With the same budget, it would run out again.
        """
        held = self.shelves.bytes_used
        if self.behind is not None:
            self.behind.forget_bodies()
        dropped = self.invalidation.drop_keys(list(self.shelves.slots))
        self.shelves.free_all()
        if held > KEPT_BYTES_MIN:
            fewer = max(KEPT_BYTES_MIN, held * 3 // 4)
            self.reconfigure(replace(self._rules, bytes_max=min(self._rules.bytes_max, fewer)))
        return dropped

    def free_some(self) -> None:
        """Free a part of the dropped entries whose memory is not freed yet; call it every tick."""
        self.shelves.free_some()

    # -- Statistics

    def stats(self) -> dict[str, int]:
        """Return the present figures, by the names in `StoreStats`."""
        counts, shelves = self._counts, self.shelves
        counts.unchanged = self._again + self._just_again
        counts.entries = shelves.entries
        counts.keys = len(shelves.slots)
        counts.bodies = shelves.bodies
        counts.owners = len(shelves.owner_keys)
        counts.bytes_used = shelves.bytes_used
        counts.evicted_budget = shelves.evicted_budget
        counts.evicted_share = shelves.evicted_share
        return asdict(counts)

    def crowding(self) -> tuple[int, float]:
        """Return how many responses the budget has evicted, and the share of it that is in use."""
        shelves = self.shelves
        return shelves.evicted_budget, shelves.bytes_used / max(1, self._counts.bytes_max)

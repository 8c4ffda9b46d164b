"""The last good responses, in memory, under one byte budget.

A key is an owner and a URL (policy.py); under it stand up to `variants_max` responses that differ
in what `Vary` names. Equal bodies are kept once. What is asked for once goes first
(s3fifo.py), and one owner
(other than everyone) never holds more than its share, so that one visitor who reads the whole site
does not push out the pages of all others.

How they are kept and counted is accounting.py; policy.py says whether a response may come in,
conditional.py what a request gets of it. `now` is monotonic seconds, everywhere.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from math import inf
from typing import Final, NamedTuple, cast

from retter.http.message import RequestHead, ResponseHead, Soft
from retter.http.variants import ORIGIN_MARK, is_plain, likeness, soft_of
from retter.store.accounting import SETTLED_AT_ONCE_MAX, Shelves
from retter.store.lineage import Lineages
from retter.store.personal import reflects_referer
from retter.store.policy import Identity, StorePolicy, key_of, key_parts, url_at
from retter.store.record import (
    AGE,
    AGE_MAX,
    ASKED,
    BODY,
    CODING,
    FORM_OVERHEAD_BYTES,
    FORMS,
    GENERATION,
    GIVEN_TO,
    HEAD,
    IDENTITY,
    INCOMPLETE,
    NEVER,
    OTHERS_AT,
    RECEIVED_AGE,
    SHAPE,
    SOFT,
    STORED_AT,
    STORED_BY,
    SUPERSEDED,
    VARY,
    VARY_NAMES,
    WITHDRAWN,
    Facts,
    Form,
    Record,
    StoredResponse,
    age_received_s,
    as_stored,
    bytes_referred,
    entry_bytes,
    facts_of,
    fields_of,
    updated_head,
    validates,
    vary_names_of,
)

__all__ = ["ResponseStore", "StoreRules", "StoredResponse"]

MIB: Final = 1024 * 1024

# What a store keeps of its budget however often memory runs out: some dozens of pages.
KEPT_BYTES_MIN: Final = MIB

# Changes that a response still on its way is compared with. When more of them happen during one
# request, it is taken for old: too careful, but it costs only what the next response brings back.
CHANGES_REMEMBERED_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRules:
    """Limits of the store. `secret` keys the hashes of what Vary names."""

    secret: bytes = field(repr=False)
    bytes_max: int = 64 * MIB  # a 256 MB machine has this much to spare
    variants_max: int = 10  # more is an application that varies on User-Agent
    owner_share: float = 1 / 8  # of bytes_max, for one owner that is not everyone
    max_stale_s: float = 24 * 3600.0  # older than a day is not the site any more
    policy: StorePolicy = StorePolicy.ALL

    def __post_init__(self) -> None:
        if self.bytes_max < 0 or self.variants_max < 1 or self.max_stale_s < 0:
            raise ValueError("bytes_max and max_stale_s are at least 0, variants_max at least 1")
        if not 0 < self.owner_share <= 1:
            raise ValueError("owner_share is above 0 and at most 1")


@dataclass(slots=True)
class StoreStats:
    """What the store holds and has done. Counters only ever grow; the first six are levels."""

    entries: int = 0
    keys: int = 0
    bodies: int = 0  # distinct ones
    owners: int = 0  # beside everyone
    bytes_used: int = 0
    bytes_max: int = 0
    found_own: int = 0
    found_public: int = 0
    not_found: int = 0
    stored: int = 0
    unchanged: int = 0  # stored again with the same head and body
    refreshed: int = 0  # by a 304
    refused: int = 0  # too large for the budget or the share, or too late
    superseded: int = 0
    evicted_budget: int = 0
    evicted_share: int = 0  # least recently used of an owner over its share
    evicted_variants: int = 0
    expired: int = 0  # found older than it may be served
    dropped_session: int = 0
    purged: int = 0
    withdrawn: int = 0  # taken back by the application
    restored: int = 0  # of them: it was a broken deployment


class Withdrawn(NamedTuple):
    """What is hidden under a key, and can be given back."""

    at: float
    key: bytes
    slot: tuple[Record, ...]  # as it was
    hidden: tuple[Record, ...]  # what stands there in its place


class ResponseStore:
    """Stored responses by owner and URL."""

    def __init__(self, rules: StoreRules) -> None:
        self._rules = rules
        self._shared = rules.policy is StorePolicy.RFC9111
        self._shelves = Shelves(rules.bytes_max, int(rules.bytes_max * rules.owner_share))
        # Looked at with every request, so reached in one step.
        self._slots = self._shelves.slots
        self._owner_keys = self._shelves.owner_keys
        self._asked = self._shelves.queues.asked
        self._changes: OrderedDict[int, float] = OrderedDict()  # oldest first
        self._changed_at = -inf  # the newest of them
        self._all_changed_at = -inf  # the newest that is forgotten: it may have been any key's
        self._emptied_at = -inf
        self._counts = StoreStats(bytes_max=rules.bytes_max)
        self.lineages: Lineages | None = None  # the sessions that go by several values

    def reconfigure(self, rules: StoreRules) -> None:
        """Take other limits; the secret and the policy are the same for ever.

        What is over a smaller budget goes with the ticks. `max_stale_s` holds for what is stored
        from now on.
        """
        self._rules = rules
        self._counts.bytes_max = rules.bytes_max
        self._shelves.resize(rules.bytes_max, int(rules.bytes_max * rules.owner_share))

    # -- Finding

    def lookup(
        self, identity: Identity, request: RequestHead, now: float, *, superseded: bool = False
    ) -> StoredResponse | None:
        """Return what `find` does, with names."""
        found = self.find(identity, request, now, superseded)
        return None if found is None else as_stored(found)

    def find(
        self, identity: Identity, request: RequestHead, now: float, superseded: bool = False
    ) -> Record | None:
        """Return the response to answer with: the owner's own, else everyone's if it is a 200.

        With `superseded` also one that an unsafe method has made old: for when the application
        fails, not to spare it work. Where the owner's own is superseded and not asked for, nothing
        is returned: somebody who has just changed a page is not shown the anonymous one. Under the
        rules for shared caches it is never used again (RFC 9111 section 4.4).
        """
        if identity.rolling is not None:
            return self._find_rolling(identity, request, now, superseded)
        key = identity.key
        slot = self._slots.get(key)
        if slot is not None:
            newest = slot[0]
            found: Record | None = newest
            if newest[VARY_NAMES] or len(slot) > 1 or newest[SHAPE] != identity.shape:
                found = self._select(slot, identity, request)
                if found is not None and found is not newest:
                    self._shelves.bring_forward(key, found)
            # Its age as StoredResponse.age has it; a name costs three times a place, and a
            # forwarded request asks for the age alone.
            if found is not None and now - found[STORED_AT] + found[AGE] <= found[AGE_MAX]:
                if (found[SUPERSEDED] or found[INCOMPLETE]) and (
                    not superseded or (self._shared and found[SUPERSEDED])
                ):
                    self._counts.not_found += 1
                    return None
                self._asked[key] = None
                if identity.owner:
                    keys = self._owner_keys[identity.owner]
                    del keys[key]
                    keys[key] = None
                self._counts.found_own += 1
                return found
            if found is not None and found[AGE_MAX] != WITHDRAWN:
                self._shelves.remove(key, found)
                self._counts.expired += 1
        if identity.public_key is not None:
            return self._find_public(identity.public_key, identity, request, now, superseded)
        self._counts.not_found += 1
        return None

    def _find_rolling(
        self, identity: Identity, request: RequestHead, now: float, superseded: bool
    ) -> Record | None:
        """Do the same for a session that goes by several values, old and new."""
        for key, generation in identity.readable:
            slot = self._slots.get(key)
            found = None if slot is None else self._select(slot, identity, request, generation)
            if found is None or now - found[STORED_AT] + found[AGE] > found[AGE_MAX]:
                continue
            if (found[SUPERSEDED] or found[INCOMPLETE]) and (
                not superseded or (self._shared and found[SUPERSEDED])
            ):
                self._counts.not_found += 1
                return None
            self._shelves.touch(key, key_parts(key)[0])
            self._counts.found_own += 1
            return found
        if identity.public_key is not None:
            return self._find_public(identity.public_key, identity, request, now, superseded)
        self._counts.not_found += 1
        return None

    def _find_public(
        self, key: bytes, identity: Identity, request: RequestHead, now: float, superseded: bool
    ) -> Record | None:
        slot = self._slots.get(key)
        if slot is not None and (found := self._select(slot, identity, request)) is not None:
            stored = as_stored(found)
            if stored.age(now) > stored.age_max_s:
                if stored.age_max_s != WITHDRAWN:
                    self._shelves.remove(key, found)
                    self._counts.expired += 1
            elif stored.status == 200 and (
                not (stored.superseded or stored.incomplete)
                or (superseded and not (self._shared and stored.superseded))
            ):
                self._asked[key] = None
                if found is not slot[0]:
                    self._shelves.bring_forward(key, found)
                self._counts.found_public += 1
                return found
        self._counts.not_found += 1
        return None

    def _select(
        self,
        slot: tuple[Record, ...],
        identity: Identity,
        request: RequestHead,
        generation: int = 0,
    ) -> Record | None:
        """Return the variant that this request selects (RFC 9111 section 4.1).

        Of several the one that was made for what is most like it.
        """
        best: Record | None = None
        best_likeness = -1
        wanted: Soft | None = None
        for found in slot:
            if not self._is_for(found, identity, request, generation):
                continue
            if len(slot) == 1:
                return found
            if wanted is None:
                wanted = soft_of(request)
            alike = likeness(found[SOFT], wanted)
            if alike > best_likeness:
                best, best_likeness = found, alike
        return best

    def _is_for(
        self, record: Record, identity: Identity, request: RequestHead, generation: int = 0
    ) -> bool:
        """Tell whether a variant may answer this request, which reads up to that generation."""
        names = record[VARY_NAMES]
        return (
            record[SHAPE] == identity.shape
            and record[GENERATION] <= generation
            and (not names or record[VARY] == self._vary(names, request))
        )

    def _selected(
        self,
        slot: tuple[Record, ...] | None,
        identity: Identity,
        request: RequestHead,
        generation: int = 0,
    ) -> StoredResponse | None:
        found = None if slot is None else self._select(slot, identity, request, generation)
        return None if found is None else as_stored(found)

    def _vary(self, names: tuple[bytes, ...], request: RequestHead) -> bytes:
        # Hashed, because Vary may name a field with a credential in it. The last mark tells an
        # absent field from an empty one.
        values = [
            b"%d:%b" % (len(value), value)
            if (value := request.combined(name))
            else (b"-" if request.first(name) is None else b"0:")
            for name in names
        ]
        return blake2b(b"".join(values), key=self._rules.secret, digest_size=16).digest()

    def has_any(self, identity: Identity) -> bool:
        """Tell whether anything is stored for this URL that this client might be given."""
        slots, public = self._slots, identity.public_key
        if identity.key in slots and self.holds(identity.key):
            return True
        return public is not None and public in slots and self.holds(public)

    def peek(
        self, identity: Identity, request: RequestHead, now: float
    ) -> tuple[StoredResponse | None, bool]:
        """Return what stands there for this request, and whether it is everyone's.

        It is what `lookup` would find, superseded or not; or where that finds nothing, what is
        too old to be found. Nothing is changed by looking.
        """
        own: StoredResponse | None = None
        for key, generation in identity.readable:
            own = self._selected(self._slots.get(key), identity, request, generation) or own
            if own is not None and own.age(now) <= own.age_max_s:
                return own, not identity.owner
        slot = None if identity.public_key is None else self._slots.get(identity.public_key)
        public = self._selected(slot, identity, request)
        if public is not None and public.status == 200 and public.age(now) <= public.age_max_s:
            return public, True
        return own, own is not None and not identity.owner

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
        """Store a whole response that `storable` has allowed; False if that is not done.

        It replaces what this request would have been answered with until now.

        Args:
            incomplete: It came with a cookie that its asker did not have.
            client: A number for who asked; 0 if that is not known.
        """
        superseded = False
        if response.status >= 300 and reflects_referer(request, response):
            self._counts.refused += 1
            return False
        if requested_at <= self._changed_at:
            if requested_at <= self._emptied_at:
                self._counts.refused += 1
                return False
            if identity.owner and self._dropped_since(identity, requested_at):
                self._counts.refused += 1
                return False
            if requested_at <= self._changes.get(hash(_withdrawal_of(identity.key)), -inf):
                self._counts.refused += 1
                return False
            superseded = self._changed_since(identity.key, requested_at)
        generation = 0
        if (rolling := identity.rolling) is not None:
            generation = rolling.generation
            if self.lineages is None or not self.lineages.may_store(rolling.value, requested_at):
                self._counts.refused += 1
                return False
        facts = self._facts_of(response)
        if facts is None:
            self._counts.refused += 1
            return False
        key, owner = identity.key, identity.owner
        slot = self._slots.get(key)
        if slot is not None:
            old = slot[0]
            if (
                (old[HEAD] is response.stored or old[HEAD] == response.stored)
                and old[BODY] == body
                and len(slot) == 1
                and not old[VARY_NAMES]
                and old[SHAPE] == identity.shape
                and old[INCOMPLETE] is incomplete
                # What new settings may have changed.
                and old[AGE_MAX] == facts.age_max_s
                and ((old[FORMS] is None) is not response.compressible or old[CODING])
            ):
                age_s = facts.received_age_s
                self._store_again(
                    identity, old, response, age_s, superseded, requested_at, now, client
                )
                return True
        if not owner and request.ids and any(one in body for one in request.ids):
            self._counts.refused += 1  # the client has chosen what everyone would be shown
            return False
        shape = identity.shape
        names = facts.vary_names
        if shape.startswith(ORIGIN_MARK) and not facts.any_origin and b"origin" not in names:
            names = (*names, b"origin")
        soft = soft_of(request)
        stored_by = 0
        size = entry_bytes(key, response.stored, facts.etag, facts.last_modified, shape)
        shelves = self._shelves
        if not shelves.fits(owner, size + len(body)):
            self._counts.refused += 1
            return False
        body = shelves.hold_body(body)  # before the same body is released, with its forms
        others: tuple[Record, ...] = ()
        if slot is not None:
            others = self._without_replaced(
                slot, identity, request, response, body, soft, generation
            )
        if others:
            stored_by = client  # to keep one from pushing out what others have stored
            others = self._with_room(others, owner, stored_by)
        record: Record = (
            response.status,
            response.stored,
            body,
            facts.content_coding,
            facts.etag,
            facts.last_modified,
            now,
            facts.received_age_s + now - requested_at,
            superseded,
            facts.no_store,
            facts.age_max_s,
            shape,
            names,
            self._vary(names, request) if names else b"",
            facts.received_age_s,
            size,
            () if response.compressible else None,
            incomplete,
            not owner,
            soft,
            generation,
            stored_by,
            client,
            NEVER if slot is None else _others_at(slot, client),
            identity.asked,
        )
        shelves.insert(key, owner, others, record, size, identity.marks)
        self._counts.stored += 1
        return True

    def _facts_of(self, response: ResponseHead) -> Facts | None:
        """Read the fields of a response, once for all responses with this very head."""
        known = response.facts
        if known is None or known[0] is not self._rules:
            facts = facts_of(response.fields, self._rules.max_stale_s, shared=self._shared)
            known = response.facts = (self._rules, facts)
        return cast("Facts | None", known[1])

    def _store_again(
        self,
        identity: Identity,
        old: Record,
        response: ResponseHead,
        age_s: int,
        superseded: bool,
        requested_at: float,
        now: float,
        client: int,
    ) -> None:
        # The Age is not in the bytes compared. A head that has come before takes the place of the
        # equal one.
        key, owner = identity.key, identity.owner
        self._slots[key] = (
            (
                old[0], response.stored, *old[BODY:STORED_AT],
                now, age_s + now - requested_at, superseded,
                *old[SUPERSEDED + 1 : RECEIVED_AGE], age_s, *old[RECEIVED_AGE + 1 : GIVEN_TO],
                client, old[OTHERS_AT] if old[GIVEN_TO] == client else old[STORED_AT],
                identity.asked,
            ),
        )  # fmt: skip
        self._asked[key] = None
        if owner:
            keys = self._owner_keys[owner]
            del keys[key]
            keys[key] = None
        self._counts.unchanged += 1

    def _without_replaced(
        self,
        slot: tuple[Record, ...],
        identity: Identity,
        request: RequestHead,
        response: ResponseHead,
        body: bytes,
        soft: Soft,
        generation: int,
    ) -> tuple[Record, ...]:
        """Release the variants that a new response replaces; return the others.

        These are the one made for the same language, device and country, and those that turn out
        to be equal to it: nothing depends on these, then.
        """
        only = slot[0]
        if (
            len(slot) == 1
            and only[SOFT] == soft
            and self._is_for(only, identity, request, generation)
        ):
            self._shelves.release(identity.owner, only)  # nearly always
            return ()
        kept: list[Record] = []
        for record in slot:
            replaced = record[AGE_MAX] == WITHDRAWN or (
                self._is_for(record, identity, request, generation)
                and (
                    record[SOFT] == soft
                    or (record[BODY] == body and record[HEAD] == response.stored)
                )
            )
            if replaced:
                self._shelves.release(identity.owner, record)
            else:
                kept.append(record)
        return tuple(kept)

    def _with_room(
        self, others: tuple[Record, ...], owner: bytes, stored_by: int
    ) -> tuple[Record, ...]:
        """Make room for one more variant of a key.

        The least recently used one goes: of the client that has most of them, if one has several,
        and never the plain one, which most visitors want.
        """
        kept = list(others)
        while len(kept) >= self._rules.variants_max:
            able = [record for record in kept if record[VARY_NAMES] or not is_plain(record[SHAPE])]
            able = able or kept
            held = [self._held(able, record, stored_by) for record in able]
            _, last = max(zip(held, range(len(held)), strict=True))
            victim = able[last]
            kept = [record for record in kept if record is not victim]
            self._shelves.release(owner, victim)
            self._counts.evicted_variants += 1
        return tuple(kept)

    @staticmethod
    def _held(records: list[Record], record: Record, newcomer: int) -> int:
        """Return how many of the variants are of this one's client, the new one included."""
        client: int = record[STORED_BY]
        if not client:
            return 1
        theirs = [one for one in records if one[STORED_BY] == client]
        return len(theirs) + (client == newcomer)

    # -- Forms in other codings

    def coded_body(self, body: bytes, coding: bytes) -> bytes | None:
        """Return a stored body in another coding, if that has been made."""
        return self._shelves.coded(body, coding)

    def keep_coded(self, body: bytes, coding: bytes, coded: bytes) -> None:
        """Keep a stored body in another coding too, if it is still stored and there is room.

        `coded` is the body itself where the coding gains nothing: then it is not tried again.
        """
        self._shelves.hold_coded(body, coding, coded)
        self._shelves.make_room(b"")

    def attach(self, identity: Identity, stored: StoredResponse, coding: bytes, form: Form) -> None:
        """Keep a form with the response of this owner, or of everyone, that it was made from."""
        key = self._key_of(identity, stored)
        if key is None or (stored.forms is None and coding != IDENTITY):
            return
        new = _with_form(stored, coding, form)
        owner, _ = key_parts(key)
        if self._shelves.fits(owner, new.entry_bytes + bytes_referred(new)):
            self._shelves.replace(key, stored, new)
            self._shelves.make_room(owner)

    def _key_of(self, identity: Identity, stored: StoredResponse) -> bytes | None:
        """Return under which key this very response is stored for this client, if it still is."""
        for key in (*[own for own, _ in identity.readable], identity.public_key):
            if key is not None and stored in self._slots.get(key, ()):
                return key
        return None

    def form_bytes_max(self, body: bytes) -> int:
        """Return how large a form of a body may be to be kept."""
        return self._shelves.coded_bytes_max(body)

    def keep_decoded(self, identity: Identity, stored: StoredResponse, form: Form) -> bool:
        """Keep an encoded response in its decoded form too.

        False if the budget or its owner's share has no room for that: then it is not tried again.
        True as well if the response is not stored any more.
        """
        key = self._key_of(identity, stored)
        if key is None:
            return True
        owner, _ = key_parts(key)
        new = _with_form(stored, IDENTITY, form)
        fits = self._shelves.fits(owner, new.entry_bytes + bytes_referred(new))
        self.keep_coded(stored.body, IDENTITY, form.body if fits else stored.body)
        if self.coded_body(stored.body, IDENTITY) == stored.body:
            return False
        self.attach(identity, stored, IDENTITY, form)
        return True

    # -- Refreshing and marking

    def refresh(
        self,
        identity: Identity,
        request: RequestHead,
        not_modified: ResponseHead,
        requested_at: float,
        now: float,
        client: int = 0,
    ) -> None:
        """Let a 304 to a client's conditional GET refresh the owner's own response.

        Only if it validates that very response: by the ETag or the Last-Modified that the 304
        carries, or else by the only one that the client asked with (RFC 9111 section 4.3.4; we
        compare exactly, where the RFC lets a weak tag match more). Fields are updated as section
        3.2 says. Everyone's response is never refreshed by somebody else's 304.
        """
        slot = self._slots.get(identity.key)
        generation = 0 if identity.rolling is None else identity.rolling.generation
        old = self._selected(slot, identity, request, generation)
        if slot is None or old is None or not validates(request, not_modified, old):
            return
        head = updated_head(old.head, not_modified)
        facts = facts_of(fields_of(head), self._rules.max_stale_s, shared=self._shared)
        vary = not_modified.combined(b"vary")
        if (
            facts is None
            or (vary and not self._varies_as(old, vary))
            or (self._shared and facts.no_store)
        ):
            # It is not what may be kept under this key any more.
            self._shelves.remove(identity.key, old)
            return
        received_age_s = age_received_s(not_modified)
        fresh = old._replace(
            head=head,
            etag=facts.etag,
            last_modified=facts.last_modified,
            stored_at=now,
            age_s=received_age_s + now - requested_at,
            superseded=old.superseded and self._changed_since(identity.key, requested_at),
            no_store=facts.no_store,
            age_max_s=facts.age_max_s,
            received_age_s=received_age_s,
            entry_bytes=entry_bytes(identity.key, head, facts.etag, facts.last_modified, old.shape),
            forms=None if old.forms is None else (),  # their heads are old
            given_to=client,
            others_at=old.others_at if old.given_to == client else old.stored_at,
            asked=identity.asked,
        )
        self._shelves.replace(identity.key, old, fresh)
        self._shelves.touch(identity.key, identity.owner)
        self._counts.refreshed += 1
        self._shelves.make_room(identity.owner)

    def _varies_as(self, old: StoredResponse, vary: bytes) -> bool:
        names = vary_names_of(vary, self._shared)
        if names is None:
            return False
        # `put` has added Origin by itself.
        return set(names) == set(old.vary_names) or {*names, b"origin"} == set(old.vary_names)

    def supersede(self, identity: Identity, urls: Iterable[bytes], now: float) -> int:
        """Mark what is stored of these URLs for this owner and for everyone; return how many.

        `urls` come from `policy.invalidated_urls`. A response that is still on its way counts too:
        it may have been made before the change.
        """
        marked = 0
        for url in urls:
            for key in {key_of(owner, url) for owner in (*identity.owners, b"")}:
                self._remember_change(key, now)
                for stored in map(as_stored, self._slots.get(key, ())):
                    if not stored.superseded:
                        self._shelves.replace(key, stored, stored._replace(superseded=True))
                        marked += 1
        self._counts.superseded += marked
        return marked

    def _remember_change(self, what: bytes, now: float) -> None:
        """Remember when a key was superseded or an owner dropped, for what is still on its way."""
        # By hash, since a key may be as long as a head. Two that share one only make a response
        # on its way count as superseded that need not.
        self._changes[hash(what)] = now
        self._changes.move_to_end(hash(what))
        self._changed_at = now
        if len(self._changes) > CHANGES_REMEMBERED_MAX:
            _, self._all_changed_at = self._changes.popitem(last=False)

    def _changed_since(self, what: bytes, asked_at: float) -> bool:
        return asked_at <= self._changes.get(hash(what), self._all_changed_at)

    # -- Taking back

    def holds(
        self, key: bytes, generation: int = 0, shape: bytes | None = None, asked: int = 0
    ) -> bool:
        """Tell whether something is stored under a key, up to a generation, and not withdrawn.

        Args:
            shape: If given, something that a request of that shape could be answered with.
            asked: `Identity.asked` of a refused request: something that was asked for like that.
        """
        return any(
            one[AGE_MAX] != WITHDRAWN
            and one[GENERATION] <= generation
            and (shape is None or one[SHAPE] == shape)
            and (not asked or one[ASKED] == asked)
            for one in self._slots.get(key, ())
        )

    def last_good(self, key: bytes, shape: bytes, client: int) -> tuple[float, float]:
        """Return when the application last gave a good answer that a shape selects.

        That is when anybody got one, and when a client other than this one did; NEVER if none is
        stored.
        """
        anybodys = others = NEVER
        for one in self._slots.get(key, ()):
            if one[SHAPE] == shape and one[AGE_MAX] != WITHDRAWN:
                anybodys = max(anybodys, one[STORED_AT])
                others = max(others, _others_at((one,), client))
        return anybodys, others

    def refuse_late(self, key: bytes, now: float) -> None:
        """Store no response under a key that was asked for until now, and is still on its way."""
        self._remember_change(_withdrawal_of(key), now)

    def withdraw(
        self, key: bytes, now: float, generation: int = 0, asked: int = 0
    ) -> Withdrawn | None:
        """Hide what is stored under a key, with all its variants; None if there is nothing.

        It is found by nobody, and still counts. A response that is still on its way will not be
        stored: it may have been made before.

        Args:
            generation: Of whoever has been refused: what is newer stays.
            asked: `Identity.asked` of the refused request: what was asked for otherwise stays.
        """
        if not self.holds(key, generation, asked=asked):
            return None
        slot = self._slots[key]
        gone = [
            one for one in slot
            if one[AGE_MAX] != WITHDRAWN  # else it belongs to the withdrawal that has hidden it
            and one[GENERATION] <= generation and (not asked or one[ASKED] == asked)
        ]  # fmt: skip
        hidden = tuple([
            (*one[:AGE_MAX], WITHDRAWN, *one[AGE_MAX + 1 :]) if one in gone else one
            for one in slot
        ])  # fmt: skip
        self._slots[key] = hidden
        self.refuse_late(key, now)
        self._counts.withdrawn += len(gone)
        return Withdrawn(now, key, slot, hidden)

    def restore(self, withdrawn: Withdrawn) -> None:
        """Give back what was hidden, as far as it is still there."""
        slot = self._slots.get(withdrawn.key)
        if slot is None:
            return
        shown = _hidden_by(withdrawn)
        self._slots[withdrawn.key] = tuple([shown.get(id(one), one) for one in slot])
        self._counts.restored += sum([id(one) in shown for one in slot])

    def discard(self, withdrawn: Withdrawn) -> None:
        """Remove what it has hidden, or what is left of that."""
        hidden = _hidden_by(withdrawn)
        for record in self._slots.get(withdrawn.key, ()):
            if id(record) in hidden:
                self._shelves.remove(withdrawn.key, record)

    # -- Removing

    def drop_owner(self, owner: bytes, now: float, marks: tuple[int, ...] = ()) -> int:
        """Drop all that is stored for one owner (login, logout); everyone is not one owner.

        Responses that are still on their way to this owner will not be stored either.

        Args:
            marks: Of sessions: the other owners with one of them go too.
        """
        owners = self._shelves.marks.owners(marks)
        if owner:
            owners.append(owner)
        if owner:
            self._remember_change(owner, now)
        for mark in marks:
            self._remember_change(b"m%d" % mark, now)
        dropped = 0
        for one in owners:
            keys = self._owner_keys.get(one, {})
            dropped += sum([self._shelves.remove_key(key) for key in list(keys)])
        self._counts.dropped_session += dropped
        return dropped

    def _dropped_since(self, identity: Identity, requested_at: float) -> bool:
        return self._changed_since(identity.owner, requested_at) or any(
            self._changed_since(b"m%d" % mark, requested_at) for mark in identity.marks
        )

    def empty(self, now: float) -> int:
        """Drop everything, and what is still on its way; return how many."""
        self._changed_at = self._emptied_at = now
        return self.purge()

    def give_up(self) -> int:
        """Drop everything and free it at once, and hold less from now on; return how many.

        For when memory has run out: where there was too little for so much, there will be again.
        """
        held = self._shelves.bytes_used
        dropped = self.purge()
        self._shelves.take_all_rubbish_out()
        if held > KEPT_BYTES_MIN:
            fewer = max(KEPT_BYTES_MIN, held * 3 // 4)
            self.reconfigure(replace(self._rules, bytes_max=min(self._rules.bytes_max, fewer)))
        return dropped

    def take_rubbish_out(self) -> None:
        """Free some of what has been dropped all at once; call it every tick."""
        self._shelves.take_rubbish_out()

    def purge(
        self, *, url: bytes | None = None, prefix: bytes | None = None, owner: bytes | None = None
    ) -> int:
        """Drop what matches all that is given (nothing given: everything); return how many.

        `url` and `prefix` are host and target as in `Identity.url`, or a target alone, which
        means that of every host; `owner` b"" is everyone. Looks at every key: it is for an
        operator's hand.
        """
        found = list(self._slots)
        if url is not None:
            found = [key for key in found if key.endswith(url)]  # to look closer at few
        if not (url is prefix is owner is None):
            any_host = (url or prefix or b"").startswith(b"/")
            found = [key for key in found if _matches(key, url, prefix, owner, any_host=any_host)]
        if len(found) == len(self._slots):
            purged = self._shelves.clear()
            self._slots, self._owner_keys = self._shelves.slots, self._shelves.owner_keys
            self._asked = self._shelves.queues.asked
        elif len(found) > SETTLED_AT_ONCE_MAX:
            purged = self._shelves.hide(found)
        else:
            purged = sum([self._shelves.remove_key(key) for key in found])
        self._counts.purged += purged
        return purged

    # -- Looking in from outside

    def stats(self) -> dict[str, int]:
        """Return the present figures, by the names in `StoreStats`."""
        counts, shelves = self._counts, self._shelves
        counts.entries = shelves.entries
        counts.keys = len(shelves.slots)
        counts.bodies = shelves.bodies
        counts.owners = len(shelves.owner_keys)
        counts.bytes_used = shelves.bytes_used
        counts.evicted_budget = shelves.evicted_budget
        counts.evicted_share = shelves.evicted_share
        return asdict(counts)


def _others_at(slot: tuple[Record, ...], client: int) -> float:
    """Return when somebody other than this client was last given one of these answers."""
    latest = NEVER
    for one in slot:
        at: float = one[OTHERS_AT] if one[GIVEN_TO] == client else one[STORED_AT]
        latest = max(latest, at)
    return latest


def _withdrawal_of(key: bytes) -> bytes:
    """Return what a withdrawal is remembered by, among the changes."""
    return b"-" + key


def _hidden_by(withdrawn: Withdrawn) -> dict[int, Record]:
    """Return what a withdrawal has hidden, as it was, by the id() of what stands in its place."""
    return {
        id(one): old
        for one, old in zip(withdrawn.hidden, withdrawn.slot, strict=True)
        if one is not old
    }


def _with_form(stored: StoredResponse, coding: bytes, form: Form) -> StoredResponse:
    forms = (*(stored.forms or ()), (coding, form))
    size = stored.entry_bytes + len(form.head) + FORM_OVERHEAD_BYTES
    return stored._replace(forms=forms, entry_bytes=size)


def _matches(
    key: bytes, url: bytes | None, prefix: bytes | None, owner: bytes | None, *, any_host: bool
) -> bool:
    at = url_at(key)
    if owner is not None and key_parts(key)[0] != owner:
        return False
    if any_host:
        at = key.find(b"/", at)
    if prefix is not None and not key.startswith(prefix, at):
        return False
    return url is None or key[at:] == url

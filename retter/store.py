"""The last good responses, in memory, under one byte budget.

A key is an owner and a URL (policy.py); under it stand up to `variants_max` responses that differ
in what `Vary` names. Equal bodies are kept once. Least recently used goes first, and one owner
(other than everyone) never holds more than its share, so that one visitor who reads the whole site
does not push out the pages of all others.

What a response is good for is decided elsewhere: policy.py says whether it may come in,
conditional.py what a request gets of it. `now` is monotonic seconds, everywhere.

All that is held are bytes, numbers and tuples of them: nothing for the garbage collector to find.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import blake2b
from math import inf
from typing import Final, NamedTuple

from retter.cachecontrol import CacheControl, delta_seconds, parse_cache_control, shared_age_max_s
from retter.message import Fields, RequestHead, ResponseHead
from retter.policy import Identity, StorePolicy, key_of, key_parts

MIB: Final = 1024 * 1024

# What one stored response costs beside its bytes, measured with tracemalloc over 22,000 to 44,000
# entries on CPython 3.11 (64 bit): 600 for everyone's, 720 for an owner's. It is the record with
# its numbers, the tuple of variants, the key's places in two ordered dictionaries, the body's in
# two tables, and the headers of the bytes objects.
ENTRY_OVERHEAD_BYTES: Final = 720
# What an owner costs on top (measured: 460): the account and its ordered dictionary.
OWNER_OVERHEAD_BYTES: Final = 480

# Changes that a response still on its way is compared with. When more of them happen during one
# request, it is taken for old: too careful, but it costs only what the next response brings back.
CHANGES_REMEMBERED_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRules:
    """Limits of the store. `secret` keys the hashes of what Vary names."""

    secret: bytes = field(repr=False)
    bytes_max: int = 64 * MIB           # a 256 MB machine has this much to spare
    variants_max: int = 10              # more is an application that varies on User-Agent
    owner_share: float = 1 / 8          # of bytes_max, for one owner that is not everyone
    max_stale_s: float = 24 * 3600.0    # older than a day is not the site any more
    policy: StorePolicy = StorePolicy.ALL

    def __post_init__(self) -> None:
        if self.bytes_max < 0 or self.variants_max < 1 or self.max_stale_s < 0:
            raise ValueError("bytes_max and max_stale_s are at least 0, variants_max at least 1")
        if not 0 < self.owner_share <= 1:
            raise ValueError("owner_share is above 0 and at most 1")


class StoredResponse(NamedTuple):
    """One stored response. Never changed: a refresh makes another one."""

    status: int
    head: bytes                  # ResponseHead.stored: no Content-Length, Set-Cookie, Age
    body: bytes                  # as the application sent it, in `content_coding`
    content_coding: bytes        # lower case; b"" is identity
    etag: bytes                  # b"" is none
    last_modified: bytes         # b"" is none
    stored_at: float             # monotonic seconds
    age_s: float                 # at stored_at: received Age + response delay (RFC 9111 4.2.3)
    superseded: bool             # an unsafe method has changed the resource since
    no_store: bool               # said no-store: memory only, never a disk or a shared store
    age_max_s: float             # not served when older
    shape: bytes                 # of the request that it answered
    vary_names: tuple[bytes, ...]
    vary: bytes                  # keyed hash of that request's values of these fields
    received_age_s: int
    entry_bytes: int             # what it counts in the budget, beside its body

    def age(self, now: float) -> float:
        """Return the current age in seconds (RFC 9111 section 4.2.3)."""
        return self.age_s + now - self.stored_at


@dataclass(slots=True)
class StoreStats:
    """What the store holds and has done. Counters only ever grow; the first six are levels."""

    entries: int = 0
    keys: int = 0
    bodies: int = 0              # distinct ones
    owners: int = 0              # beside everyone
    bytes_used: int = 0
    bytes_max: int = 0
    found_own: int = 0
    found_public: int = 0
    not_found: int = 0
    stored: int = 0
    unchanged: int = 0           # stored again with the same head and body
    refreshed: int = 0           # by a 304
    refused: int = 0             # too large for the budget or the share, or too late
    superseded: int = 0
    evicted_budget: int = 0      # least recently used
    evicted_share: int = 0       # least recently used of an owner over its share
    evicted_variants: int = 0
    expired: int = 0             # found older than it may be served
    dropped_session: int = 0
    purged: int = 0


class _Account:
    """What one owner holds: its keys, least recently used first, and the bytes they refer to."""

    __slots__ = ("bytes_held", "keys")

    def __init__(self) -> None:
        self.bytes_held = 0
        self.keys: OrderedDict[bytes, None] = OrderedDict()


class _Facts(NamedTuple):
    """What a response head says that the store needs."""

    content_coding: bytes
    etag: bytes
    last_modified: bytes
    no_store: bool
    age_max_s: float
    vary_names: tuple[bytes, ...]


_FACT_FIELDS: Final = frozenset((
    b"content-encoding", b"etag", b"last-modified", b"cache-control", b"vary", b"expires", b"date",
))
# The coding is not a variant (one representation is kept), the cookies are the owner.
_NOT_VARIED: Final = frozenset((b"accept-encoding", b"cookie"))
# RFC 9111 section 3.2: a 304 never changes these. The rest is about the body that we keep.
_KEPT_ON_REFRESH: Final = frozenset((
    b"content-length", b"content-encoding", b"content-type", b"content-range", b"content-md5",
    b"content-digest", b"repr-digest", b"digest", b"transfer-encoding", b"connection",
    b"keep-alive", b"trailer", b"upgrade", b"set-cookie", b"age", b"vary", b"via",
))


class ResponseStore:
    """Stored responses by owner and URL."""

    def __init__(self, rules: StoreRules) -> None:
        self._rules = rules
        self._shared = rules.policy is StorePolicy.RFC9111
        self._owner_bytes_max = int(rules.bytes_max * rules.owner_share)
        self._slots: OrderedDict[bytes, tuple[StoredResponse, ...]] = OrderedDict()
        self._accounts: dict[bytes, _Account] = {}
        self._bodies: dict[bytes, bytes] = {}       # each distinct body once
        self._body_uses: dict[bytes, int] = {}
        self._bytes_used = 0
        self._entries = 0
        self._changes: OrderedDict[bytes, float] = OrderedDict()    # oldest first
        self._changed_at = -inf         # the newest of them
        self._all_changed_at = -inf     # the newest that is forgotten: it may have been any key's
        self._counts = StoreStats(bytes_max=rules.bytes_max)

    # -- Finding

    def lookup(
        self, identity: Identity, request: RequestHead, now: float, *, superseded: bool = False
    ) -> StoredResponse | None:
        """Return the response to answer with: the owner's own, else everyone's if it is a 200.

        With `superseded` also one that an unsafe method has made old: for when the application
        fails, not to spare it work. Where the owner's own is superseded and not asked for, nothing
        is returned: somebody who has just changed a page is not shown the anonymous one.
        """
        key = identity.key
        slot = self._slots.get(key)
        if slot is not None:
            newest = slot[0]
            if newest.vary_names or len(slot) > 1 or newest.shape != identity.shape:
                stored = self._select(slot, identity, request)
            else:
                stored = newest
            if stored is not None and now - stored.stored_at + stored.age_s <= stored.age_max_s:
                if stored.superseded and not superseded:
                    self._counts.not_found += 1
                    return None
                self._slots.move_to_end(key)
                if identity.owner:
                    self._accounts[identity.owner].keys.move_to_end(key)
                self._counts.found_own += 1
                return stored
            if stored is not None:
                self._remove(key, stored)
                self._counts.expired += 1
        if identity.public_key is not None:
            return self._lookup_public(identity.public_key, identity, request, now, superseded)
        self._counts.not_found += 1
        return None

    def _lookup_public(
        self, key: bytes, identity: Identity, request: RequestHead, now: float, superseded: bool
    ) -> StoredResponse | None:
        slot = self._slots.get(key)
        if slot is not None and (stored := self._select(slot, identity, request)) is not None:
            if stored.age(now) > stored.age_max_s:
                self._remove(key, stored)
                self._counts.expired += 1
            elif stored.status == 200 and (superseded or not stored.superseded):
                self._slots.move_to_end(key)
                self._counts.found_public += 1
                return stored
        self._counts.not_found += 1
        return None

    def _select(
        self, slot: tuple[StoredResponse, ...], identity: Identity, request: RequestHead
    ) -> StoredResponse | None:
        """Return the newest variant that this request selects (RFC 9111 section 4.1)."""
        shape = identity.shape
        for stored in slot:
            if stored.shape == shape and (
                not stored.vary_names or stored.vary == self._vary(stored.vary_names, request)
            ):
                return stored
        return None

    def _vary(self, names: tuple[bytes, ...], request: RequestHead) -> bytes:
        # Hashed, because Vary may name a field with a credential in it. The last mark tells an
        # absent field from an empty one.
        values = [
            b"%d:%b" % (len(value), value) if (value := request.combined(name)) else
            (b"-" if request.first(name) is None else b"0:")
            for name in names
        ]
        return blake2b(b"".join(values), key=self._rules.secret, digest_size=16).digest()

    # -- Storing

    def put(
        self,
        identity: Identity,
        request: RequestHead,
        response: ResponseHead,
        body: bytes,
        requested_at: float,
        now: float,
    ) -> bool:
        """Store a whole response that `storable` has allowed; False if it is too large.

        It replaces what this request would have been answered with until now.
        """
        superseded = False
        if requested_at <= self._changed_at:
            if identity.owner and self._changed_since(identity.owner, requested_at):
                self._counts.refused += 1
                return False
            superseded = self._changed_since(identity.key, requested_at)
        slot = self._slots.get(identity.key)
        if slot is not None:
            old = slot[0]
            if (
                (old.head is response.stored or old.head == response.stored)
                and len(slot) == 1
                and not old.vary_names
                and old.shape == identity.shape
                and old.body == body
            ):
                self._store_again(identity, old, response, superseded, requested_at, now)
                return True
        facts = self._facts(response.fields)
        size = 0 if facts is None else _entry_bytes(
            identity.key, response.stored, facts.etag, facts.last_modified, identity.shape
        )
        if facts is None or not self._fits(identity.owner, size + len(body)):
            self._counts.refused += 1
            return False
        if slot is not None:
            slot = self._without_replaced(slot, identity, request)
        body = self._hold_body(body)
        received_age_s = _received_age_s(response)
        self._insert(identity, slot or (), StoredResponse(
            response.status,
            response.stored,
            body,
            facts.content_coding,
            facts.etag,
            facts.last_modified,
            now,
            received_age_s + now - requested_at,
            superseded,
            facts.no_store,
            facts.age_max_s,
            identity.shape,
            facts.vary_names,
            self._vary(facts.vary_names, request) if facts.vary_names else b"",
            received_age_s,
            size,
        ))
        self._counts.stored += 1
        return True

    def _store_again(
        self,
        identity: Identity,
        old: StoredResponse,
        response: ResponseHead,
        superseded: bool,
        requested_at: float,
        now: float,
    ) -> None:
        # The same head object has the same Age; equal bytes do not say so, as Age is not in them.
        same = old.head is response.stored
        received_age_s = old.received_age_s if same else _received_age_s(response)
        self._slots[identity.key] = (
            StoredResponse(
                old.status, old.head, old.body, old.content_coding, old.etag, old.last_modified,
                now, received_age_s + now - requested_at, superseded, old.no_store, old.age_max_s,
                old.shape, old.vary_names, old.vary, received_age_s, old.entry_bytes,
            ),
        )
        self._touch(identity.key, identity.owner)
        self._counts.unchanged += 1

    def _fits(self, owner: bytes, size: int) -> bool:
        if owner:
            return size + OWNER_OVERHEAD_BYTES <= self._owner_bytes_max
        return size <= self._rules.bytes_max

    def _without_replaced(
        self, slot: tuple[StoredResponse, ...], identity: Identity, request: RequestHead
    ) -> tuple[StoredResponse, ...]:
        """Release the variants that this request selects, and the oldest where there is no room."""
        old = slot[0]
        if len(slot) == 1 and not old.vary_names and old.shape == identity.shape:
            self._release(identity.owner, old)
            return ()
        kept: list[StoredResponse] = []
        for old in slot:
            replaced = old.shape == identity.shape and (
                not old.vary_names or old.vary == self._vary(old.vary_names, request)
            )
            if not replaced and len(kept) < self._rules.variants_max - 1:
                kept.append(old)
                continue
            self._release(identity.owner, old)
            if not replaced:
                self._counts.evicted_variants += 1
        return tuple(kept)

    def _insert(
        self, identity: Identity, others: tuple[StoredResponse, ...], stored: StoredResponse
    ) -> None:
        key, owner, size = identity.key, identity.owner, stored.entry_bytes
        self._slots[key] = (stored, *others)
        self._entries += 1
        self._bytes_used += size
        if owner:
            account = self._accounts.get(owner)
            if account is None:
                account = self._accounts[owner] = _Account()
                account.bytes_held = OWNER_OVERHEAD_BYTES
                self._bytes_used += OWNER_OVERHEAD_BYTES
            account.bytes_held += size + len(stored.body)
            account.keys[key] = None
        self._touch(key, owner)
        self._make_room(owner)

    def _touch(self, key: bytes, owner: bytes) -> None:
        self._slots.move_to_end(key)
        if owner:
            self._accounts[owner].keys.move_to_end(key)

    def _facts(self, fields: Fields) -> _Facts | None:
        found: dict[bytes, bytes] = {}
        for name, value in [line for line in fields if line[0] in _FACT_FIELDS]:
            found[name] = found[name] + b", " + value if name in found else value
        vary_names = _vary_names(found.get(b"vary", b""))
        if vary_names is None:
            return None
        control = parse_cache_control(found.get(b"cache-control", b""))
        return _Facts(
            found.get(b"content-encoding", b"").lower(),
            found.get(b"etag", b""),
            found.get(b"last-modified", b""),
            control.no_store,
            self._age_max_s(control, found),
            vary_names,
        )

    def _age_max_s(self, control: CacheControl, found: dict[bytes, bytes]) -> float:
        if not self._shared:
            return self._rules.max_stale_s
        return shared_age_max_s(
            control, found.get(b"expires"), found.get(b"date"), self._rules.max_stale_s
        )

    # -- Refreshing and marking

    def refresh(
        self,
        identity: Identity,
        request: RequestHead,
        not_modified: ResponseHead,
        requested_at: float,
        now: float,
    ) -> None:
        """Let a 304 to a client's conditional GET refresh the owner's own response.

        Only if it validates that very response: by the ETag or the Last-Modified that the 304
        carries, or else by the only one that the client asked with (RFC 9111 section 4.3.4; we
        compare exactly, where the RFC lets a weak tag match more). Fields are updated as section
        3.2 says. Everyone's response is never refreshed by somebody else's 304.
        """
        slot = self._slots.get(identity.key)
        old = self._select(slot, identity, request) if slot is not None else None
        if slot is None or old is None or not _validates(request, not_modified, old):
            return
        head = _updated_head(old.head, not_modified)
        facts = self._facts(_fields_of(head))
        vary = not_modified.combined(b"vary")
        if (
            facts is None
            or (vary and _vary_names(vary) != old.vary_names)
            or (self._shared and facts.no_store)
        ):
            self._remove(identity.key, old)      # not what may be kept under this key any more
            return
        received_age_s = _received_age_s(not_modified)
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
            entry_bytes=_entry_bytes(
                identity.key, head, facts.etag, facts.last_modified, old.shape
            ),
        )
        self._replace(identity.key, old, fresh)
        self._touch(identity.key, identity.owner)
        self._counts.refreshed += 1
        self._make_room(identity.owner)

    def _replace(self, key: bytes, old: StoredResponse, new: StoredResponse) -> None:
        """Put one record in the place of another with the same body."""
        owner, _ = key_parts(key)
        grown = new.entry_bytes - old.entry_bytes
        self._slots[key] = tuple([new if held is old else held for held in self._slots[key]])
        self._bytes_used += grown
        if owner:
            self._accounts[owner].bytes_held += grown

    def supersede(self, identity: Identity, urls: Iterable[bytes], now: float) -> int:
        """Mark what is stored of these URLs for this owner and for everyone; return how many.

        `urls` come from `policy.invalidated_urls`. A response that is still on its way counts too:
        it may have been made before the change.
        """
        marked = 0
        for url in urls:
            for key in {key_of(identity.owner, url), key_of(b"", url)}:
                self._remember_change(key, now)
                for stored in self._slots.get(key, ()):
                    if not stored.superseded:
                        self._replace(key, stored, stored._replace(superseded=True))
                        marked += 1
        self._counts.superseded += marked
        return marked

    def _remember_change(self, what: bytes, now: float) -> None:
        """Remember when a key was superseded or an owner dropped, for what is still on its way."""
        self._changes[what] = now
        self._changes.move_to_end(what)
        self._changed_at = now
        if len(self._changes) > CHANGES_REMEMBERED_MAX:
            _, self._all_changed_at = self._changes.popitem(last=False)

    def _changed_since(self, what: bytes, asked_at: float) -> bool:
        return asked_at <= self._changes.get(what, self._all_changed_at)

    # -- Removing

    def drop_owner(self, owner: bytes, now: float) -> int:
        """Drop all that is stored for one owner (login, logout); everyone is not one owner.

        Responses that are still on their way to this owner will not be stored either.
        """
        if owner:
            self._remember_change(owner, now)
        account = self._accounts.get(owner)
        if account is None:
            return 0
        dropped = sum([self._remove_key(key) for key in list(account.keys)])
        self._counts.dropped_session += dropped
        return dropped

    def purge(
        self, *, url: bytes | None = None, prefix: bytes | None = None, owner: bytes | None = None
    ) -> int:
        """Drop what matches all that is given (nothing given: everything); return how many.

        `url` and `prefix` are host and target as in `Identity.url`; `owner` b"" is everyone.
        Looks at every key: it is for an operator's hand.
        """
        purged = 0
        for key in list(self._slots):
            key_owner, key_url = key_parts(key)
            if (
                (url is None or key_url == url)
                and (prefix is None or key_url.startswith(prefix))
                and (owner is None or key_owner == owner)
            ):
                purged += self._remove_key(key)
        self._counts.purged += purged
        return purged

    def _make_room(self, owner: bytes) -> None:
        # What was stored last fits alone (`_fits`), so it is never what goes.
        slots = self._slots
        if owner:
            account = self._accounts[owner]
            while account.bytes_held > self._owner_bytes_max:
                key = next(iter(account.keys))
                self._remove(key, slots[key][-1])
                self._counts.evicted_share += 1
        while self._bytes_used > self._rules.bytes_max:
            key = next(iter(slots))
            self._remove(key, slots[key][-1])
            self._counts.evicted_budget += 1

    def _remove(self, key: bytes, stored: StoredResponse) -> None:
        """Drop one variant, and its key with the last one."""
        owner, _ = key_parts(key)
        self._release(owner, stored)
        rest = tuple([held for held in self._slots[key] if held is not stored])
        if rest:
            self._slots[key] = rest
        else:
            self._forget(key, owner)

    def _remove_key(self, key: bytes) -> int:
        owner, _ = key_parts(key)
        slot = self._slots[key]
        for stored in slot:
            self._release(owner, stored)
        self._forget(key, owner)
        return len(slot)

    def _forget(self, key: bytes, owner: bytes) -> None:
        del self._slots[key]
        if owner:
            account = self._accounts[owner]
            del account.keys[key]
            if not account.keys:
                del self._accounts[owner]
                self._bytes_used -= OWNER_OVERHEAD_BYTES

    def _release(self, owner: bytes, stored: StoredResponse) -> None:
        self._entries -= 1
        self._bytes_used -= stored.entry_bytes
        if owner:
            self._accounts[owner].bytes_held -= stored.entry_bytes + len(stored.body)
        self._release_body(stored.body)

    def _hold_body(self, body: bytes) -> bytes:
        # Dictionaries of the bytes themselves: their hash is keyed (siphash), and remembered.
        held = self._bodies.get(body)
        if held is not None:
            self._body_uses[held] += 1
            return held
        self._bodies[body] = body
        self._body_uses[body] = 1
        self._bytes_used += len(body)
        return body

    def _release_body(self, body: bytes) -> None:
        uses = self._body_uses[body] - 1
        if uses:
            self._body_uses[body] = uses
        else:
            del self._body_uses[body]
            del self._bodies[body]
            self._bytes_used -= len(body)

    # -- Looking in from outside

    def stats(self) -> dict[str, int]:
        """Return the present figures, by the names in `StoreStats`."""
        counts = self._counts
        counts.entries = self._entries
        counts.keys = len(self._slots)
        counts.bodies = len(self._bodies)
        counts.owners = len(self._accounts)
        counts.bytes_used = self._bytes_used
        return asdict(counts)


def _entry_bytes(
    key: bytes, head: bytes, etag: bytes, last_modified: bytes, shape: bytes
) -> int:
    return (
        ENTRY_OVERHEAD_BYTES + len(key) + len(head) + len(etag) + len(last_modified) + len(shape)
    )


def _received_age_s(response: ResponseHead) -> int:
    # A malformed Age is ignored, of a list the first member counts (RFC 9111 section 5.1).
    value = response.first(b"age")
    if value is None:
        return 0
    return delta_seconds(value.partition(b",")[0].strip(b" \t")) or 0


@lru_cache(maxsize=256)  # a site has few distinct ones
def _vary_names(value: bytes) -> tuple[bytes, ...] | None:
    """Return the fields that Vary names and that separate variants, or None for `*`."""
    names = {name.strip(b" \t").lower() for name in value.split(b",")}
    if b"*" in names:
        return None
    return tuple(sorted(names - _NOT_VARIED - {b""}))


def _validates(request: RequestHead, not_modified: ResponseHead, stored: StoredResponse) -> bool:
    if etag := not_modified.combined(b"etag"):
        return etag == stored.etag
    if last_modified := not_modified.combined(b"last-modified"):
        return last_modified == stored.last_modified
    if asked := request.combined(b"if-none-match"):
        return asked == stored.etag          # one tag, so the 304 can mean no other
    asked = request.combined(b"if-modified-since")
    return bool(asked) and asked == stored.last_modified


def _updated_head(head: bytes, not_modified: ResponseHead) -> bytes:
    """Return the stored head with the fields of the 304 in place of its own."""
    status_line, *lines = head.split(b"\r\n")[:-1]
    _, *new_lines = not_modified.stored.split(b"\r\n")[:-1]
    news = [line for line in new_lines if _name_of(line) not in _KEPT_ON_REFRESH]
    replaced = {_name_of(line) for line in news}
    kept = [line for line in lines if _name_of(line) not in replaced]
    return b"\r\n".join([status_line, *kept, *news, b""])


def _name_of(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()


def _fields_of(head: bytes) -> Fields:
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:-1]]
    return tuple([(name.lower(), value.strip(b" \t")) for name, _, value in lines])

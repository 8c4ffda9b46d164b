"""The shelves of stored responses: keys, variants, owners' accounts, bodies; every byte counts.

This is the mechanism under store.py. It knows the eviction order (s3fifo.py) and the cost of each
entry, and nothing about requests. Equal bodies are kept once. Each owner is charged for every body
that its entries refer to, but the budget is charged only once for each body. All values are bytes,
numbers and tuples of them, so the garbage collector has little to scan.
"""

from typing import TYPE_CHECKING, Any, Final

from retter.store.marks import OwnerMarks
from retter.store.owner import OWNER_BYTES
from retter.store.policy import key_parts
from retter.store.record import (
    BODY,
    ENTRY_BYTES,
    FORMS,
    STORED_AT,
    Record,
    StoredResponse,
    bytes_referred,
)
from retter.store.s3fifo import PROBATION_SHARE, EvictionQueues

if TYPE_CHECKING:
    from retter.store.write_behind import Found, WriteBehind  # for a disk alone

# The additional cost of an owner (measured: 400): its dictionary and its entries in two others. The
# session mark by which the owner is found costs as much again (marks.py).
OWNER_OVERHEAD_BYTES: Final = 880


_OWNED: Final = ord("@")  # the first octet of an owner's key (policy.py)

# Dictionary entries of cleared shelves that are freed in one tick. This takes a millisecond or two,
# and all of them are freed in seconds.
FREED_AT_ONCE_MAX: Final = 8192

# Keys that one tick stops counting, if very many were removed or must be removed. This takes as
# long as the above.
SETTLED_AT_ONCE_MAX: Final = 512


class Shelves:
    """Stored responses by key, under a budget and a share of it for each owner."""

    __slots__ = (
        "_bodies",
        "_body_uses",
        "_bytes_max",
        "_bytes_wanted",
        "_cleared",
        "_coded",
        "_hidden",
        "_last_body",
        "_owner_bytes",
        "_owner_bytes_max",
        "behind",
        "bytes_used",
        "entries",
        "evicted_budget",
        "evicted_share",
        "marks",
        "owner_keys",
        "queues",
        "slots",
    )

    def __init__(self, bytes_max: int, owner_bytes_max: int) -> None:
        self._bytes_max = bytes_max  # higher than wanted while shrinking
        self._bytes_wanted = bytes_max
        self._owner_bytes_max = owner_bytes_max
        # The variants of a key, newest first.
        self.slots: dict[bytes, tuple[Record, ...]] = {}
        self.queues = EvictionQueues(bytes_max)
        # For each owner: its keys, least recently used first, and the bytes they refer to. Plain
        # dictionaries of bytes are half the size of ordered ones, and the collector skips them.
        # Most owners have one key: it is kept as it is, without a dictionary of 232 octets.
        self.owner_keys: dict[bytes, bytes | dict[bytes, None]] = {}
        # The bytes of an owner that has had several keys. Those of another one follow from its key:
        # a table less that each new owner is written into, and 130 octets less for it.
        self._owner_bytes: dict[bytes, int] = {}
        self.marks = OwnerMarks()
        self._bodies: dict[bytes, bytes] = {}  # each distinct body once
        self._body_uses: dict[bytes, int] = {}
        self._last_body: bytes | None = None  # the one that was stored last, while it is stored
        self._coded: dict[bytes, dict[bytes, bytes]] = {}  # for each body: by coding
        self.bytes_used = 0
        self.entries = 0
        self.behind: WriteBehind | None = None  # a disk, which gets all changes
        self.evicted_budget = 0
        self.evicted_share = 0
        self._cleared: list[dict[bytes, Any]] = []  # cleared shelves, not yet freed
        # Purged entries whose bytes are not yet released. Their keys are still among those of their
        # owners.
        self._hidden: dict[bytes, tuple[Record, ...]] = {}

    def tell(
        self,
        key: bytes,
        now: float,
        slot: tuple[Record, ...] | None = None,
        *,
        removed: bool = False,
    ) -> None:
        """Report to the disk that the entries of a key have changed, other than by an eviction.

        Args:
            slot: The entries that the disk shall have, if the key is not in memory any more.
            removed: One of them is removed, and not replaced.
        """
        if self.behind is not None:
            slot = self.slots.get(key, slot or ())
            marks = self.marks_of(key) if slot and not key.startswith(b"*") else ()
            self.behind.changed(key, slot, marks, now, removed)

    def resize(self, bytes_max: int, owner_bytes_max: int) -> None:
        """Change the budget and the share.

        An owner over its share shrinks when it stores something again. If the budget is smaller
        now, `free_some` evicts the excess little by little.
        """
        self._bytes_wanted = bytes_max
        self._bytes_max = max(bytes_max, self.bytes_used)
        self._owner_bytes_max = owner_bytes_max

    @property
    def bodies(self) -> int:
        """Return the number of distinct bodies."""
        return len(self._bodies)

    def fits(self, owner: bytes, size: int) -> bool:
        """Return whether an entry of this size, body included, could be kept at all."""
        if owner:
            return size + OWNER_OVERHEAD_BYTES <= self._owner_bytes_max
        return size <= self._bytes_max

    def insert(
        self,
        key: bytes,
        owner: bytes,
        others: tuple[Record, ...],
        record: Record,
        size: int,
        marks: tuple[int, ...] = (),
    ) -> None:
        """Put an entry, whose body is acquired already, before the other variants of its key.

        Args:
            size: The cost of the entry without its body. It is new, so it has no forms.
            marks: The marks of the owner's sessions (marks.py).
        """
        slots, queues = self.slots, self.queues
        is_new = key not in slots
        slots[key] = (record, *others) if others else (record,)
        self.entries += 1
        whole = size + len(record[BODY])
        used = self.bytes_used + size
        over_share = False
        if owner:
            keys = self.owner_keys.get(owner)
            if keys is None:
                self.marks.add(owner, marks)
                self.owner_keys[owner] = key
                used += OWNER_OVERHEAD_BYTES
                over_share = OWNER_OVERHEAD_BYTES + whole > self._owner_bytes_max
            elif isinstance(keys, dict):
                keys.pop(key, None)
                keys[key] = None
                held = self._owner_bytes[owner] = self._owner_bytes[owner] + whole
                over_share = held > self._owner_bytes_max
            else:
                held = OWNER_OVERHEAD_BYTES + self._bytes_at(key)
                if keys != key:
                    held += self._bytes_at(keys)
                    self.owner_keys[owner] = {keys: None, key: None}
                    self._owner_bytes[owner] = held
                over_share = held > self._owner_bytes_max
        if others:
            whole += sum([other[ENTRY_BYTES] + bytes_referred(other) for other in others])
        self.bytes_used = used
        if not is_new:
            queues.add(key, whole)
        if over_share:
            self.make_room(owner)
        if self.bytes_used > self._bytes_max:
            self.make_room(b"")
        if is_new:
            queues.add_new(key, whole)

    def owner_bytes(self, owner: bytes) -> int:
        """Return what counts against an owner's share, in octets."""
        keys = self.owner_keys.get(owner)
        if keys is None:
            return 0
        if isinstance(keys, dict):
            return self._owner_bytes[owner]
        return OWNER_OVERHEAD_BYTES + self._bytes_at(keys)

    def _bytes_at(self, key: bytes) -> int:
        """Return the octets of the entries of a key, and of the bodies that they refer to."""
        slot = self.slots.get(key, ())
        if self._hidden:
            slot = (*slot, *self._hidden.get(key, ()))
        return sum([one[ENTRY_BYTES] + bytes_referred(one) for one in slot])

    def keys_of(self, owner: bytes) -> list[bytes]:
        """Return the keys of an owner, least recently used first."""
        keys = self.owner_keys.get(owner)
        if keys is None:
            return []
        return list(keys) if isinstance(keys, dict) else [keys]

    def promote(self, key: bytes, found: "Found") -> bool:
        """Copy entries from the disk to memory; False if there is no room, or the key is there."""
        if key in self.slots or not found.slot:
            return False
        owner, _ = key_parts(key)
        size = sum([one[ENTRY_BYTES] + len(one[BODY]) for one in found.slot])
        if not self.fits(owner, size):
            return False
        others: tuple[Record, ...] = ()
        for one in reversed(found.slot):
            record = self._copied(one)
            self.insert(key, owner, others, record, one[ENTRY_BYTES], found.marks)
            others = (record, *others)
        return True

    def add_variants(self, key: bytes, more: list[Record]) -> None:
        """Copy further variants of a key from the disk to memory, if there is room."""
        owner, _ = key_parts(key)
        for one in more:
            others = self.slots.get(key)
            size = one[ENTRY_BYTES] + len(one[BODY])
            if others is None or not self.fits(owner, size):
                return
            self.insert(key, owner, others, self._copied(one), one[ENTRY_BYTES])

    def _copied(self, one: Record) -> Record:
        """Return an entry from the disk as one in memory, with its body acquired."""
        body, forms = self.acquire_body(one[BODY]), one[FORMS] and ()
        if body is one[BODY] and forms is one[FORMS]:
            return one
        return (*one[:BODY], body, *one[BODY + 1 : FORMS], forms, *one[FORMS + 1 :])

    def take_over(self, key: bytes, found: "Found", now: float, *, tell: bool) -> None:
        """Store the entries that the other process has under a key, unless the own are newer.

        Args:
            tell: The disk does not have these entries yet.
        """
        slot = self.slots.get(key)
        if slot is not None:
            newest = max([one[STORED_AT] for one in found.slot], default=now)
            if max([one[STORED_AT] for one in slot]) > newest:
                return
            self.remove_key(key)
        self.promote(key, found)
        if tell:
            self.tell(key, now)

    def marks_of(self, key: bytes) -> tuple[int, ...]:
        """Return the marks of the sessions of a key's owner."""
        owner, _ = key_parts(key)
        return self.marks.of(owner) if owner else ()

    def touch(self, key: bytes, owner: bytes) -> None:
        """Note that a key was requested."""
        self.queues.asked[key] = None
        keys = self.owner_keys[owner] if owner else owner
        if isinstance(keys, dict):
            del keys[key]
            keys[key] = None

    def bring_forward(self, key: bytes, record: Record) -> None:
        """Make a variant the most recently used one of its key."""
        slot = self.slots[key]
        self.slots[key] = (record, *[other for other in slot if other is not record])

    def replace(self, key: bytes, old: StoredResponse, new: StoredResponse) -> None:
        """Replace a record by another one with the same body."""
        owner, _ = key_parts(key)
        grown = new.entry_bytes - old.entry_bytes
        referred = bytes_referred(new) - bytes_referred(old)
        record = tuple(new)
        self.slots[key] = tuple([record if held == old else held for held in self.slots[key]])
        self.bytes_used += grown
        self.queues.grow(key, grown + referred)
        if owner in self._owner_bytes:
            self._owner_bytes[owner] += grown + referred

    def make_room(
        self, owner: bytes, *, spared_key: bytes = b"", spared_body: bytes | None = None
    ) -> None:
        """Evict entries until the share and the budget are kept.

        To keep an owner's share, its least recently used entries are evicted. To keep the budget,
        the queues choose. The entry that was stored last fits alone and is never evicted.

        Args:
            spared_key: The key of a response that must not be evicted to make room for one of its
                own forms.
            spared_body: The same for a form that belongs to all responses with this body.
        """
        if owner:
            if self._hidden:
                for key in [key for key in self.keys_of(owner) if key in self._hidden]:
                    self._settle(key, self._hidden.pop(key))
            while self.owner_bytes(owner) > self._owner_bytes_max:
                keys = self.owner_keys[owner]
                key = next(iter(keys)) if isinstance(keys, dict) else keys
                self._drop(key, whole=isinstance(keys, dict) and len(keys) > 1)
                self.evicted_share += 1
        while self.bytes_used > self._bytes_max:
            if self._hidden:
                self._settle(*self._hidden.popitem())
            elif spared_key or spared_body is not None or not self._evict_only():
                self._evict(spared_key, spared_body)

    def _evict(self, spared_key: bytes = b"", spared_body: bytes | None = None) -> None:
        """Evict the next variant; a spared one only if nothing else is left."""
        queues = self.queues
        key = queues.next_to_go(self._bytes_max)
        if key == spared_key or (
            spared_body is not None and any(one[BODY] is spared_body for one in self.slots[key])
        ):
            queues.asked[key] = None  # it stays for another round: it is in use right now
            key = queues.next_to_go(self._bytes_max)
        self.evicted_budget += 1
        whole = self.behind is not None or len(self.slots[key]) == 1
        if whole and key in queues.probation:
            queues.ghosts.add(key)
        self._drop(key, whole=whole)

    def _evict_only(self) -> bool:
        """Evict the next key if it is an ordinary one; return whether it was.

        That is one on probation, with one variant, and the only one of its owner. It does what
        `_evict` does, in a third of the instructions (150 instead of 430): while visitors come that
        were never seen before, each new response evicts such a key.
        """
        queues = self.queues
        probation = queues.probation
        if not probation or (
            queues.main and queues.probation_bytes <= self._bytes_max // PROBATION_SHARE
        ):
            return False
        key = next(iter(probation))
        slot = self.slots[key]
        if len(slot) != 1 or key in queues.asked:
            return False
        used = self.bytes_used
        if key[0] == _OWNED:
            owner = key[1 : 1 + OWNER_BYTES]
            if isinstance(self.owner_keys[owner], dict):
                return False
            del self.owner_keys[owner]
            self.marks.forget(owner)
            used -= OWNER_OVERHEAD_BYTES
        queues.ghosts.add(key)
        queues.probation_bytes -= probation.pop(key)
        del self.slots[key]
        self.entries -= 1
        self.evicted_budget += 1
        record = slot[0]
        self.bytes_used = used - record[ENTRY_BYTES]
        body = record[BODY]
        uses = self._body_uses[body]
        if uses > 1:
            self._body_uses[body] = uses - 1
        else:
            self._release_body(body)
        return True

    def _drop(self, key: bytes, *, whole: bool) -> None:
        """Drop the oldest variant of a key; with a disk, drop all of them.

        The disk is read only for keys that are not in memory. So a variant that stayed in memory
        would hide those on disk.
        """
        if whole and self.behind is not None:
            self.remove_key(key)
        else:
            self.remove(key, self.slots[key][-1])

    def clear(self) -> int:
        """Drop everything; return the number of entries.

        To free a hundred thousand entries takes a tenth of a second, and no request shall wait for
        that. So `free_some` frees them later. `slots`, `owner_keys` and `queues` are new objects
        afterwards.
        """
        dropped, queues = self.entries, self.queues
        self._cleared += [
            self.slots, self.owner_keys, self._owner_bytes, self._bodies, self._body_uses,
            self._coded, self._hidden, queues.asked, queues.probation, queues.main,
        ]  # fmt: skip
        self._hidden = {}
        self.queues = EvictionQueues(self._bytes_wanted)
        if len(self.queues.ghosts) == len(queues.ghosts):
            self.queues.ghosts = queues.ghosts  # only hashes of evicted keys
        self.slots, self.owner_keys, self._owner_bytes = {}, {}, {}
        self._bodies, self._body_uses, self._coded = {}, {}, {}
        self._last_body = None
        self.marks.clear()
        self.bytes_used = self.entries = 0
        return dropped

    def free_some(self) -> None:
        """Free some entries that were cleared or hidden, or exceed a new budget; for each tick."""
        if self._hidden or self._bytes_max != self._bytes_wanted:
            self._shrink()
        left = FREED_AT_ONCE_MAX
        while self._cleared and left:
            shelf = self._cleared[-1]
            while shelf and left:
                shelf.popitem()
                left -= 1
            if not shelf:
                self._cleared.pop()

    def free_all(self) -> None:
        """Free all cleared shelves, however long it takes."""
        self._cleared.clear()

    def _shrink(self) -> None:
        left = SETTLED_AT_ONCE_MAX
        while left and self._hidden:
            self._settle(*self._hidden.popitem())
            left -= 1
        while left and self.bytes_used > self._bytes_wanted:
            self._evict()
            left -= 1
        self._bytes_max = max(self._bytes_wanted, min(self._bytes_max, self.bytes_used))

    def hide(self, keys: list[bytes]) -> int:
        """Drop keys with all their variants, if there are too many to release their bytes now.

        From here on, no look-up finds them. The ticks release their bytes. Returns the number of
        their entries.
        """
        slots, hidden = self.slots, self._hidden
        before = self.entries
        for key in keys:
            if key in hidden:
                self._settle(key, hidden.pop(key))  # hidden before, and stored again meanwhile
            slot = hidden[key] = slots.pop(key)
            self.queues.remove(key)
            self.entries -= len(slot)
        return before - self.entries

    def _settle(self, key: bytes, slot: tuple[Record, ...]) -> None:
        """Stop counting the hidden entries of a key."""
        owner, _ = key_parts(key)
        self.entries += len(slot)  # `hide` has subtracted them, and `release` does it again
        for record in slot:
            self.release(owner, record)
        if owner and key not in self.slots:
            self._forget_owners(key, owner)

    def remove(self, key: bytes, record: Record) -> None:
        """Drop one variant, and its key with the last one."""
        owner, _ = key_parts(key)
        self.release(owner, record)
        slot = self.slots[key]
        if len(slot) == 1:
            self._forget(key, owner)
        else:
            self.slots[key] = tuple([held for held in slot if held != record])
            self.queues.grow(key, -record[ENTRY_BYTES] - bytes_referred(record))

    def remove_key(self, key: bytes) -> int:
        """Drop a key with all its variants; return their number."""
        if key in self._hidden:
            self._settle(key, self._hidden.pop(key))
        slot = self.slots.get(key)
        if slot is None:
            return 0
        owner, _ = key_parts(key)
        for record in slot:
            self.release(owner, record)
        self._forget(key, owner)
        return len(slot)

    def _forget(self, key: bytes, owner: bytes) -> None:
        if key in self._hidden:
            self._settle(key, self._hidden.pop(key))  # while its owner still has an account
        del self.slots[key]
        self.queues.remove(key)
        if owner:
            self._forget_owners(key, owner)

    def _forget_owners(self, key: bytes, owner: bytes) -> None:
        keys = self.owner_keys[owner]
        if isinstance(keys, dict):
            del keys[key]
        if not keys or not isinstance(keys, dict):
            del self.owner_keys[owner]
            self._owner_bytes.pop(owner, None)
            self.marks.forget(owner)
            self.bytes_used -= OWNER_OVERHEAD_BYTES

    def release(self, owner: bytes, record: Record) -> None:
        """Stop counting an entry that the caller removes from its slot."""
        self.entries -= 1
        self.bytes_used -= record[ENTRY_BYTES]
        if owner in self._owner_bytes:
            self._owner_bytes[owner] -= record[ENTRY_BYTES] + bytes_referred(record)
        self._release_body(record[BODY])

    def acquire_body(self, body: bytes) -> bytes:
        """Count one more use of a body; return the bytes to keep."""
        last = self._last_body
        if last is not None and body == last:
            # In a rush on one page, with other cookies: to hash 1 KiB takes 3,300 instructions of
            # the processor, to compare it 100.
            self._body_uses[last] += 1
            return last
        # The bytes themselves are the keys: Python's hash of bytes is keyed (siphash) and cached.
        held = self._bodies.get(body)
        if held is not None:
            self._body_uses[held] += 1
        else:
            self._bodies[body] = held = body
            self._body_uses[body] = 1
            self.bytes_used += len(body)
        self._last_body = held
        return held

    def held_body(self, body: bytes) -> bytes | None:
        """Return the stored body that is equal to this one, if there is one."""
        return self._bodies.get(body)

    def _release_body(self, body: bytes) -> None:
        uses = self._body_uses[body] - 1
        if uses:
            self._body_uses[body] = uses
        else:
            del self._body_uses[body]
            del self._bodies[body]
            if body == self._last_body:
                self._last_body = None
            self.bytes_used -= len(body)
            for coded in self._coded.pop(body, {}).values():
                if coded is not body:
                    self.bytes_used -= len(coded)

    def add_coded(self, body: bytes, coding: bytes, coded: bytes) -> None:
        """Keep a body in another coding for as long as the body itself; also once."""
        held = self._bodies.get(body)  # an equal one, if the body was dropped and stored again
        if held is None:
            return
        others = self._coded.setdefault(held, {})
        if coding in others:
            return
        if coded is body or len(coded) > self.coded_bytes_max(held):
            others[coding] = held
        else:
            others[coding] = coded
            self.bytes_used += len(coded)

    def coded_bytes_max(self, body: bytes) -> int:
        """Return how large one more form of a body may be.

        A body and all its forms take at most half of the budget: they must never evict the response
        that they were made from.
        """
        forms = self._coded.get(body, {}).values()
        size = len(body) + sum([len(form) for form in forms if form is not body])
        return max(0, self._bytes_max // 2 - size)

    def coded(self, body: bytes, coding: bytes) -> bytes | None:
        """Return a body in another coding, if it is stored."""
        others = self._coded.get(body)
        return others.get(coding) if others is not None else None

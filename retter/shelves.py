"""Where stored responses lie: keys, variants, owners' accounts, bodies, and every byte counted.

The mechanism under store.py. It knows what is least recently used and what everything costs; it
knows nothing of requests. Equal bodies are kept once; an owner is charged for each body that its
entries refer to, the budget only once for each. All that is held are bytes, numbers and tuples of
them: little for the garbage collector to walk through.
"""

from collections import OrderedDict
from typing import Final

from retter.policy import key_parts
from retter.stored import StoredResponse, bytes_referred

# What an owner costs on top (measured: 460): the account and its ordered dictionary.
OWNER_OVERHEAD_BYTES: Final = 480


class _Account:
    """What one owner holds: its keys, least recently used first, and the bytes they refer to."""

    __slots__ = ("bytes_held", "keys")

    def __init__(self) -> None:
        self.bytes_held = 0
        self.keys: OrderedDict[bytes, None] = OrderedDict()


class Shelves:
    """Stored responses by key, under a budget and a share of it for each owner."""

    __slots__ = (
        "_bodies", "_body_uses", "_bytes_max", "_coded", "_owner_bytes_max", "accounts",
        "bytes_used", "entries", "evicted_budget", "evicted_share", "slots",
    )

    def __init__(self, bytes_max: int, owner_bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._owner_bytes_max = owner_bytes_max
        # Least recently used first; the variants of a key newest first.
        self.slots: OrderedDict[bytes, tuple[StoredResponse, ...]] = OrderedDict()
        self.accounts: dict[bytes, _Account] = {}
        self._bodies: dict[bytes, bytes] = {}       # each distinct body once
        self._body_uses: dict[bytes, int] = {}
        self._coded: dict[bytes, dict[bytes, bytes]] = {}   # of a body, by coding
        self.bytes_used = 0
        self.entries = 0
        self.evicted_budget = 0
        self.evicted_share = 0

    def resize(self, bytes_max: int, owner_bytes_max: int) -> None:
        """Change the budget. An owner over its share shrinks when it stores something again."""
        self._bytes_max = bytes_max
        self._owner_bytes_max = owner_bytes_max
        self.make_room(b"")

    @property
    def bodies(self) -> int:
        """Return the number of distinct bodies."""
        return len(self._bodies)

    def fits(self, owner: bytes, size: int) -> bool:
        """Tell whether an entry of this size, body included, could be kept at all."""
        if owner:
            return size + OWNER_OVERHEAD_BYTES <= self._owner_bytes_max
        return size <= self._bytes_max

    def insert(
        self, key: bytes, owner: bytes, others: tuple[StoredResponse, ...], stored: StoredResponse
    ) -> None:
        """Put an entry, whose body is held already, before the other variants of its key."""
        size = stored.entry_bytes
        self.slots[key] = (stored, *others)
        self.entries += 1
        self.bytes_used += size
        if owner:
            account = self.accounts.get(owner)
            if account is None:
                account = self.accounts[owner] = _Account()
                account.bytes_held = OWNER_OVERHEAD_BYTES
                self.bytes_used += OWNER_OVERHEAD_BYTES
            account.bytes_held += size + bytes_referred(stored)
            account.keys[key] = None
        self.touch(key, owner)
        self.make_room(owner)

    def touch(self, key: bytes, owner: bytes) -> None:
        """Make a key the most recently used one."""
        self.slots.move_to_end(key)
        if owner:
            self.accounts[owner].keys.move_to_end(key)

    def replace(self, key: bytes, old: StoredResponse, new: StoredResponse) -> None:
        """Put one record in the place of another with the same body."""
        owner, _ = key_parts(key)
        grown = new.entry_bytes - old.entry_bytes
        referred = bytes_referred(new) - bytes_referred(old)
        self.slots[key] = tuple([new if held is old else held for held in self.slots[key]])
        self.bytes_used += grown
        if owner:
            self.accounts[owner].bytes_held += grown + referred

    def make_room(self, owner: bytes) -> None:
        """Drop what is least recently used until share and budget are kept.

        What was put in last fits alone, so it is never what goes.
        """
        slots = self.slots
        if owner:
            account = self.accounts[owner]
            while account.bytes_held > self._owner_bytes_max:
                key = next(iter(account.keys))
                self.remove(key, slots[key][-1])
                self.evicted_share += 1
        while self.bytes_used > self._bytes_max:
            key = next(iter(slots))
            self.remove(key, slots[key][-1])
            self.evicted_budget += 1

    def remove(self, key: bytes, stored: StoredResponse) -> None:
        """Drop one variant, and its key with the last one."""
        owner, _ = key_parts(key)
        self.release(owner, stored)
        rest = tuple([held for held in self.slots[key] if held is not stored])
        if rest:
            self.slots[key] = rest
        else:
            self._forget(key, owner)

    def remove_key(self, key: bytes) -> int:
        """Drop a key with all its variants; return how many they were."""
        owner, _ = key_parts(key)
        slot = self.slots[key]
        for stored in slot:
            self.release(owner, stored)
        self._forget(key, owner)
        return len(slot)

    def _forget(self, key: bytes, owner: bytes) -> None:
        del self.slots[key]
        if owner:
            account = self.accounts[owner]
            del account.keys[key]
            if not account.keys:
                del self.accounts[owner]
                self.bytes_used -= OWNER_OVERHEAD_BYTES

    def release(self, owner: bytes, stored: StoredResponse) -> None:
        """Stop counting an entry that the caller takes from its slot."""
        self.entries -= 1
        self.bytes_used -= stored.entry_bytes
        if owner:
            self.accounts[owner].bytes_held -= stored.entry_bytes + bytes_referred(stored)
        self._release_body(stored.body)

    def hold_body(self, body: bytes) -> bytes:
        """Count one more use of a body; return the bytes to keep."""
        # Dictionaries of the bytes themselves: their hash is keyed (siphash), and remembered.
        held = self._bodies.get(body)
        if held is not None:
            self._body_uses[held] += 1
            return held
        self._bodies[body] = body
        self._body_uses[body] = 1
        self.bytes_used += len(body)
        return body

    def _release_body(self, body: bytes) -> None:
        uses = self._body_uses[body] - 1
        if uses:
            self._body_uses[body] = uses
        else:
            del self._body_uses[body]
            del self._bodies[body]
            self.bytes_used -= len(body)
            for coded in self._coded.pop(body, {}).values():
                if coded is not body:
                    self.bytes_used -= len(coded)

    def hold_coded(self, body: bytes, coding: bytes, coded: bytes) -> None:
        """Keep a body in another coding for as long as the body itself; once, like that."""
        if body in self._bodies:
            others = self._coded.setdefault(body, {})
            if coding not in others:
                others[coding] = coded
                self.bytes_used += len(coded) if coded is not body else 0

    def coded(self, body: bytes, coding: bytes) -> bytes | None:
        """Return a body in another coding, if that is kept."""
        others = self._coded.get(body)
        return others.get(coding) if others is not None else None

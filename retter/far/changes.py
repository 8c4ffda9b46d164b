"""The changes that boxes send each other, and those that a box has received.

The server puts all changes into one order: the stream. Every stored response carries the place of
the last change that its box had received when it wrote the response. If a later change concerns the
response, it counts as superseded or as absent. So a box that has not received a logout yet cannot
bring back what the logout has dropped.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from retter.store.packed_removals import packed_removals, unpacked_removals
from retter.store.policy import key_parts
from retter.store.write_behind import Purge, Removals

# A place in the order of changes: milliseconds and a number, both 64 bits, as in the stream's ids.
PLACE_BYTES: Final = 16
NO_PLACE: Final = bytes(PLACE_BYTES)

# Changes that are remembered of each kind. A box writes only while it hears, so only responses that
# are written within about a second of a change depend on this memory: 64 bytes for each.
HEARD_MAX: Final = 8192
PURGES_MAX: Final = 64

_place = Struct(">QQ")


class Effect(Enum):
    """The effect that later changes have on a stored response."""

    VALID = "valid"
    SUPERSEDED = "superseded"
    GONE = "gone"


@dataclass(slots=True)
class Message:
    """The changes that one box sends to the others."""

    box: str
    removals: Removals = field(default_factory=Removals)
    orders: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    names: list[bytes] = field(default_factory=list[bytes])  # of session cookies

    def __bool__(self) -> bool:
        return bool(self.removals or self.orders or self.names)

    def packed(self) -> bytes:
        """Return the message as octets."""
        said: dict[str, Any] = {"box": self.box}
        if self.removals:
            said["removals"] = packed_removals(self.removals).decode()
        if self.orders:
            said["orders"] = self.orders
        if self.names:
            said["names"] = [name.hex() for name in self.names]
        return json.dumps(said).encode()


def message_of(data: bytes) -> Message | None:
    """Return the message in these octets; None if they are no message."""
    try:
        said = json.loads(data)
        removals = Removals()
        if "removals" in said:
            removals = unpacked_removals(said["removals"].encode())
        orders = [dict(order) for order in said.get("orders", ())]
        names = [bytes.fromhex(name) for name in said.get("names", ())]
        return Message(str(said["box"]), removals, orders, names)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def keep_last_orders(messages: Sequence[Message]) -> None:
    """Remove every order that a later one in these messages replaces.

    A box that begins hears the orders of a day at once. One that is over, or was withdrawn, must
    not hold its circuit even for a moment. An order may be told twice: the first time counts.
    """
    last: dict[str, dict[str, Any]] = {}
    known: set[str] = set()
    for message in messages:
        for order in message.orders:
            kind, name = str(order.get("order")), str(order.get("id"))
            if name not in known:
                known.add(name)
                last["pause" if kind == "resume" else kind] = order
    kept = {id(order) for order in last.values()}
    for message in messages:
        message.orders = [order for order in message.orders if id(order) in kept]


def place_of(stream_id: bytes) -> bytes:
    """Return the place of an id of the stream, `1700000000000-0`; places can be compared."""
    milliseconds, _, number = stream_id.partition(b"-")
    try:
        return _place.pack(int(milliseconds), int(number or 0))
    except (ValueError, StructError):
        return NO_PLACE


def id_of(place: bytes) -> bytes:
    """Return the id of a place."""
    return b"%d-%d" % _place.unpack(place)


def next_place(place: bytes) -> bytes:
    """Return the place that follows another one directly."""
    return (int.from_bytes(place, "big") + 1).to_bytes(PLACE_BYTES, "big")


class Heard:
    """The changes that a box has received.

    Attributes:
        place: Of the last one.
    """

    def __init__(self) -> None:
        self.place = NO_PLACE
        self._everything = NO_PLACE
        self._personal = NO_PLACE
        # By hash(), since a key may be long: if two have the same, one response too many is absent.
        self._gone: OrderedDict[int, bytes] = OrderedDict()
        self._superseded: OrderedDict[int, bytes] = OrderedDict()
        self._purges: list[tuple[bytes, Purge]] = []

    def note(self, place: bytes, removals: Removals) -> None:
        """Remember a change."""
        if removals.everything:
            self._everything = max(self._everything, place)
        if removals.personal:
            self._personal = max(self._personal, place)
        for what in (*removals.owners, *removals.keys, *map(mark_name, removals.marks)):
            _remember(self._gone, what, place)
        for key in removals.superseded:
            _remember(self._superseded, key, place)
        for purge in removals.purges:
            self.note_purge(place, purge)

    def note_purge(self, place: bytes, purge: Purge) -> None:
        """Remember a purge; if there are too many, the oldest counts for everything."""
        self._purges.append((place, purge))
        if len(self._purges) > PURGES_MAX:
            oldest, _ = self._purges.pop(0)
            self._everything = max(self._everything, oldest)

    def effect_on(self, key: bytes, marks: tuple[int, ...], heard: bytes) -> Effect:
        """Return what the remembered changes mean for a response.

        Args:
            heard: The place that the response carries.
        """
        owner, _ = key_parts(key)
        gone_at = [self._everything, self._gone.get(hash(key), NO_PLACE)]
        if owner:
            gone_at += [self._personal, self._gone.get(hash(owner), NO_PLACE)]
            gone_at += [self._gone.get(hash(mark_name(mark)), NO_PLACE) for mark in marks]
        if max(gone_at) > heard:
            return Effect.GONE
        if any(place > heard and purge.fits(key) for place, purge in self._purges):
            return Effect.GONE
        if self._superseded.get(hash(key), NO_PLACE) > heard:
            return Effect.SUPERSEDED
        return Effect.VALID


def mark_name(mark: int) -> bytes:
    """Return the name of a session mark, beside keys and owners."""
    return b"m%d" % mark


def _remember(table: OrderedDict[int, bytes], what: bytes, place: bytes) -> None:
    table[hash(what)] = max(place, table.get(hash(what), NO_PLACE))
    table.move_to_end(hash(what))
    if len(table) > HEARD_MAX:
        table.popitem(last=False)

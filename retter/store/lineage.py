"""Rolling sessions: sessions whose cookie gets a new value with each response.

Frameworks that keep the session data in the cookie encrypt or sign it again and again. If each
value was another owner, the visitor would not find the responses that were stored a minute ago. So
if the application replaces a value by another one, the new value *inherits* from the old one (it is
an *heir*). Both values belong to one **lineage**, and each has its **generation** in it. The owner
is the lineage and not the value.

A newer value reads the responses that were stored for an older one, but an older value reads
nothing newer. So an attacker who plants a value in a victim's browser, or has stolen an old value,
does not see what the victim does later. If one value was replaced by several others, the first one
that is used continues the lineage. Each other one begins a branch: it reads only the responses that
were stored before the branch.

set_cookie.py decides which value inherits from which. This module has only keyed hashes, and no
values. `now` is monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple, Protocol

# Remembered values: the present one of each visitor, and its heirs. 300 bytes each. The least
# recently used value is forgotten. Then its visitor does not find its stored responses any more.
VALUES_MAX: Final = 16_384

# The parallel requests of a page carry the old value, and each response may replace it by another
# one. The browser keeps only one of these.
HEIRS_MAX: Final = 8

# A request with the old value, at most this time after the change, was under way or about to be
# sent. Its response is stored for the old generation. Responses to later requests are not stored.
OVERLAP_S: Final = 10.0

# The lineages from which a branch comes, nearest first. Older ones are not read. A branch is rare:
# a browser must keep another value than the first one that it uses.
EARLIER_MAX: Final = 8


class Place(NamedTuple):
    """The place of a value."""

    lineage: bytes
    generation: int
    earlier: tuple[tuple[bytes, int], ...]  # other lineages that it reads, each up to a generation


# A value, its place, its parent, whether an heir continues its lineage, its heirs, when it was
# replaced.
Facts = tuple[bytes, Place | None, bytes, bool, tuple[bytes, ...], float]


class Others(Protocol):
    """The other workers that know the same lineages (shared_sessions.py)."""

    def rolling(self, name: bytes) -> None:
        """A cookie of this name has values here now."""
        ...

    def changed(self, value: bytes) -> None:
        """The facts about a value have changed."""
        ...

    def begin(self) -> bool:
        """Take the lock for deciding a place for all workers; False: another worker has it."""
        ...

    def end(self) -> None:
        """Release the lock."""
        ...


class _Value:
    """The facts about one value."""

    __slots__ = ("continued", "heirs", "parent", "place", "replaced_at")

    def __init__(self, place: Place | None, parent: bytes) -> None:
        self.place = place  # None: not used yet
        self.parent = parent  # the value that it has replaced; b"" is none
        self.continued = False  # an heir continues its lineage
        self.heirs: list[bytes] = []
        self.replaced_at = inf


class Lineages:
    """The values that the application has set, and their places in lineages.

    Args:
        new_id: Makes an unguessable name for a lineage from a number.

    Attributes:
        names: Of cookies that have values here.
        others: Workers that know the same lineages; None: there are none.
    """

    def __init__(self, new_id: Callable[[int], bytes]) -> None:
        self.names: set[bytes] = set()
        self.others: Others | None = None
        self._new_id = new_id
        self._made = 0
        self._values: OrderedDict[bytes, _Value] = OrderedDict()  # least recently used first
        self._replaced: deque[tuple[float, bytes]] = deque()  # (end of use, value); oldest first

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, value: bytes) -> bool:
        return value in self._values

    def begin(self, name: bytes, value: bytes, now: float) -> None:
        """Note a value that the application has set and that replaces no other."""
        self._retire(now)
        if value not in self._values:
            self._keep(value, _Value(Place(self._id(), 0, ()), b""))
            if self.others is not None:
                if name not in self.names:
                    self.others.rolling(name)
                self.others.changed(value)
            self.names.add(name)

    def inherit(self, old: bytes, value: bytes, now: float) -> bool:
        """Note a value that replaces another one; False if it has replaced a third one before.

        In that case, the value does not belong to one visitor.
        """
        self._retire(now)
        before = self._values.get(old)
        if before is None:
            return True
        known = self._values.get(value)
        if known is not None:
            if known.parent == old:
                return True  # set in the responses to parallel requests
            self._forget(value)
            return False
        before.replaced_at = min(before.replaced_at, now)
        before.heirs.append(value)
        if len(before.heirs) > HEIRS_MAX:
            self._forget_unused(before.heirs.pop(0))
        self._keep(value, _Value(None, old))
        if self.others is not None:
            self.others.changed(old)
            self.others.changed(value)
        return True

    def find(self, value: bytes) -> Place | None:
        """Return the place of a value, which its first use decides; None for an unknown value."""
        entry = self._values.get(value)
        if entry is None:
            return None
        self._values.move_to_end(value)
        if entry.place is None:
            if self.others is not None:
                self._place_for_all(value, entry, self.others)
            else:
                entry.place = self._place_of_heir(entry.parent)
        return entry.place

    def _place_for_all(self, value: bytes, entry: _Value, others: Others) -> None:
        """Decide a place that all workers have to know before the next decision."""
        alone = others.begin()
        try:
            if entry.place is None:  # no other worker has decided it
                entry.place = self._place_of_heir(entry.parent, may_continue=alone)
                others.changed(entry.parent)
                others.changed(value)
        finally:
            others.end()

    def may_store(self, value: bytes, asked_at: float) -> bool:
        """Return whether the response to a request with this value may be stored."""
        entry = self._values.get(value)
        return entry is not None and asked_at <= entry.replaced_at + OVERLAP_S

    def all_values(self) -> list[bytes]:
        """Return all values, least recently used first, for another process (handover.py)."""
        return list(self._values)

    def facts_of(self, value: bytes) -> Facts | None:
        """Return all facts about a value."""
        one = self._values.get(value)
        if one is None:
            return None
        return value, one.place, one.parent, one.continued, tuple(one.heirs), one.replaced_at

    def restore(self, facts: Facts) -> None:
        """Take the facts about a value from another process; they replace earlier ones."""
        value, place, parent, continued, heirs, replaced_at = facts
        entry = _Value(None if place is None else Place(*place), parent)
        entry.continued, entry.heirs, entry.replaced_at = continued, list(heirs), replaced_at
        self._values.pop(value, None)
        self._keep(value, entry)

    def learn(self, facts: Facts) -> bool:
        """Add what another worker knows of a value; False if it replaces another value there.

        In that case, the value does not belong to one visitor.
        """
        value, place, parent, continued, heirs, replaced_at = facts
        entry = self._values.get(value)
        if entry is None:
            self.restore(facts)
        elif entry.parent != parent:
            self._forget(value)
            return False
        else:
            self._values.move_to_end(value)
            entry.continued = entry.continued or continued
            entry.replaced_at = min(entry.replaced_at, replaced_at)
            entry.heirs += [one for one in heirs if one not in entry.heirs]
            while len(entry.heirs) > HEIRS_MAX:
                self._forget_unused(entry.heirs.pop(0))
            if entry.place is not None or place is None:
                return True
            entry.place = Place(*place)
        before = self._values.get(parent)
        if place is not None and before is not None:
            self._replaced.append((before.replaced_at + OVERLAP_S, parent))
            self._retire(-inf)  # a worker may only learn, and never begin a value itself
        return True

    def missed(self) -> None:
        """Note that messages were lost: another worker may have let a value continue any lineage.

        So each next heir begins a branch. Otherwise two values could have the same place.
        """
        for entry in self._values.values():
            entry.continued = True

    def _place_of_heir(self, parent: bytes, may_continue: bool = True) -> Place:
        before = self._values.get(parent)
        if before is None or before.place is None:
            return Place(self._id(), 0, ())  # its parent is forgotten
        self._replaced.append((before.replaced_at + OVERLAP_S, parent))
        lineage, generation, earlier = before.place
        if may_continue and not before.continued:
            before.continued = True
            return Place(lineage, generation + 1, earlier)
        return Place(self._id(), 0, ((lineage, generation), *earlier)[:EARLIER_MAX])

    def _id(self) -> bytes:
        self._made += 1
        return self._new_id(self._made)

    def _keep(self, value: bytes, entry: _Value) -> None:
        self._values[value] = entry
        if len(self._values) > VALUES_MAX:
            self._values.popitem(last=False)

    def _retire(self, now: float) -> None:
        """Forget each value with an heir in use, and its unused heirs, after the overlap time."""
        replaced = self._replaced
        while replaced and (replaced[0][0] < now or len(replaced) > VALUES_MAX):
            _, value = replaced.popleft()
            entry = self._values.get(value)
            if entry is not None:
                for heir in entry.heirs:
                    self._forget_unused(heir)
                self._forget(value)

    def _forget(self, value: bytes) -> None:
        self._values.pop(value, None)

    def _forget_unused(self, value: bytes) -> None:
        entry = self._values.get(value)
        if entry is not None and entry.place is None:
            del self._values[value]


_BASE64: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_TIME_BYTES: Final = 6  # itsdangerous: 4 octets in base64, until 2106; Django: base 62
_SIGNATURE_BYTES_MIN: Final = 20


def signed_payload(value: bytes) -> bytes | None:
    """Return the payload of a signed session without time and signature; None for other values.

    The form is that of itsdangerous (Flask) and of Django's signing: `payload.time.signature`, or
    with colons. A JSON Web Token has another form: its second part is longer.
    """
    value = value.strip(b'"')
    for mark in (b".", b":"):
        payload, *rest = value.rsplit(mark, 2)
        if len(rest) != 2 or not payload:
            continue
        time, signature = rest
        if (
            len(time) == _TIME_BYTES
            and len(signature) >= _SIGNATURE_BYTES_MIN
            and _BASE64.issuperset(time)
            and _BASE64.issuperset(signature)
        ):
            return payload
    return None

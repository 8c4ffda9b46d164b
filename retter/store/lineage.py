"""Sessions whose cookie gets a new value with each answer, followed from value to value.

Frameworks that keep the session in the cookie seal it anew again and again. Each value would be
another owner, and its visitor would find nothing that was stored a minute ago. So a value that the
application has given in place of another *inherits* from it: both stand for one **lineage**, which
is the owner in their place, and each has its **generation**.

Reading goes one way: a newer value reads what an older one has stored, the older one nothing newer.
So whoever plants a value in somebody's browser, or has stolen an old one, sees nothing of what its
later owner does. Of several values given in place of one, the first that is used goes on with the
lineage; each other one branches off: it reads what was stored before they parted, and no more.

What inherits is decided in set_cookie.py. Here are keyed hashes only, and no value. `now` is
monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

# Values followed: of each visitor the present one, and what has been given in its place. 300 bytes
# each. The one longest unused is forgotten: what it has stored is lost to its visitor.
VALUES_MAX: Final = 16_384

# A page's parallel requests carry the old value; each is given another one in its place. Only one
# of these is kept by the browser.
HEIRS_MAX: Final = 8

# A request with the old value so long after the change is one of those that were under way or about
# to be sent, and its answer is stored for the old generation. What comes later stores nothing.
OVERLAP_S: Final = 10.0

# Lineages that a branch has come from, nearest first; what is older is not read. A browser that
# keeps another value than the first that it uses makes one branch, which is rare.
EARLIER_MAX: Final = 8


class Place(NamedTuple):
    """The place of a value."""

    lineage: bytes
    generation: int
    earlier: tuple[tuple[bytes, int], ...]  # lineages it reads, each up to a generation


# A value, its place, whose heir it is, whether an heir goes on, its heirs, when it was replaced.
Facts = tuple[bytes, Place | None, bytes, bool, tuple[bytes, ...], float]


class _Value:
    """The facts about one value."""

    __slots__ = ("continued", "heirs", "parent", "place", "replaced_at")

    def __init__(self, place: Place | None, parent: bytes) -> None:
        self.place = place  # None: not used yet
        self.parent = parent  # whose heir it is; b"" is nobody's
        self.continued = False  # an heir goes on with its lineage
        self.heirs: list[bytes] = []
        self.replaced_at = float("inf")


class Lineages:
    """The values that the application gives, and what stands for them.

    Args:
        new_id: Makes an unguessable name of a lineage from a count.
    """

    def __init__(self, new_id: Callable[[int], bytes]) -> None:
        self.names: set[bytes] = set()  # of cookies that have values here
        self._new_id = new_id
        self._made = 0
        self._values: OrderedDict[bytes, _Value] = OrderedDict()  # longest unused first
        self._replaced: deque[tuple[float, bytes]] = deque()  # used up at; oldest first

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, value: bytes) -> bool:
        return value in self._values

    def begin(self, name: bytes, value: bytes, now: float) -> None:
        """Note a value that the application has given in place of none."""
        self._retire(now)
        if value not in self._values:
            self.names.add(name)
            self._keep(value, _Value(Place(self._id(), 0, ()), b""))

    def inherit(self, old: bytes, value: bytes, now: float) -> bool:
        """Note a value given in place of another; False if it was given in place of a third too.

        Then it is nobody's own.
        """
        self._retire(now)
        before = self._values.get(old)
        if before is None:
            return True
        known = self._values.get(value)
        if known is not None:
            if known.parent == old:
                return True  # given to parallel requests
            self._forget(value)
            return False
        before.replaced_at = min(before.replaced_at, now)
        before.heirs.append(value)
        if len(before.heirs) > HEIRS_MAX:
            self._forget_unused(before.heirs.pop(0))
        self._keep(value, _Value(None, old))
        return True

    def find(self, value: bytes) -> Place | None:
        """Return where a value stands; its first use decides that. None for one not given here."""
        found = self._values.get(value)
        if found is None:
            return None
        self._values.move_to_end(value)
        if found.place is None:
            found.place = self._place_of_heir(found.parent)
        return found.place

    def may_store(self, value: bytes, asked_at: float) -> bool:
        """Return whether an answer to a request with this value may be stored."""
        found = self._values.get(value)
        return found is not None and asked_at <= found.replaced_at + OVERLAP_S

    def all_values(self) -> list[bytes]:
        """Return all that is known, longest unused first: for another process (handover.py)."""
        return list(self._values)

    def facts_of(self, value: bytes) -> Facts | None:
        """Return all that is known of a value."""
        one = self._values.get(value)
        if one is None:
            return None
        return value, one.place, one.parent, one.continued, tuple(one.heirs), one.replaced_at

    def restore(self, facts: Facts) -> None:
        """Know what another process knows of a value, or knows by now."""
        value, place, parent, continued, heirs, replaced_at = facts
        entry = _Value(None if place is None else Place(*place), parent)
        entry.continued, entry.heirs, entry.replaced_at = continued, list(heirs), replaced_at
        self._values.pop(value, None)
        self._keep(value, entry)

    def _place_of_heir(self, parent: bytes) -> Place:
        before = self._values.get(parent)
        if before is None or before.place is None:
            return Place(self._id(), 0, ())  # its parent is forgotten
        self._replaced.append((before.replaced_at + OVERLAP_S, parent))
        lineage, generation, earlier = before.place
        if not before.continued:
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
        """Forget what has an heir in use, and the heirs beside it, once its time is over."""
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
    """Return what a signed session holds, without the time and the signature; None if it is none.

    The form is that of itsdangerous (Flask) and of Django's signing: `payload.time.signature`, or
    with colons. A JSON Web Token has another one: its second part is longer.
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

"""The store of one of several workers.

Each look-up first applies the removals of the others. Where it finds entries under the key, but no
variant for the request, it reads what others have stored under the key since.
"""

from math import inf
from typing import Final, Protocol

from retter.http.message import RequestHead
from retter.store.policy import Identity
from retter.store.record import SOFT, Record, StoredResponse
from retter.store.rules import StoreRules
from retter.store.selection import is_same_request, select_or_near
from retter.store.store import ResponseStore

# Called directly: `super()` would cost a third of the look for news.
_find: Final = ResponseStore.find

# How often the variants of one key are compared with those that others have stored: a crawler with
# odd fields would have ten bodies read for each request.
COMPARED_EVERY_S: Final = 1.0
COMPARED_MAX: Final = 1024  # keys that are remembered for that, 150 octets each


class News(Protocol):
    """The removals of other workers.

    Attributes:
        heads: The position up to which each worker has told its removals.
        seen: The octets of `heads` at the last look.
    """

    heads: "memoryview[int]"
    seen: bytes

    def look(self, now: float) -> None:
        """Apply new removals; `now` is monotonic seconds."""
        ...


class SharedStore(ResponseStore):
    """Stored responses near one worker.

    Attributes:
        news: The removals of other workers.
    """

    def __init__(self, rules: StoreRules, news: News) -> None:
        super().__init__(rules)
        self.news = news
        self._heads = news.heads
        self._compared: dict[bytes, float] = {}  # when the variants of a key were compared

    def find(
        self,
        identity: Identity,
        request: RequestHead,
        now: float,
        superseded: bool = False,
        peeking: bool = False,
    ) -> Record | None:
        """Return the response for a request, as `ResponseStore.find` does."""
        if self._heads.tobytes() != self.news.seen:
            self.news.look(now)
        entry = _find(self, identity, request, now, superseded, peeking)
        if entry is None and not peeking and self._learns_variants(identity, request, now):
            self._counts.not_found -= 1
            return _find(self, identity, request, now, superseded)
        return entry

    def _learns_variants(self, identity: Identity, request: RequestHead, now: float) -> bool:
        """Copy variants that others have stored of a URL; return whether there were some."""
        if self.behind is None or identity.rolling is not None:
            return False
        slots, learnt = self.shelves.slots, False
        for key in (identity.key, identity.public_key):
            slot = None if key is None else slots.get(key)
            if key is None or slot is None:
                continue
            secret = self._secret if key is identity.key and identity.owner else self._public_secret
            if select_or_near(slot, identity, request, secret, 0, self._shared) is not None:
                continue  # it may not be used now
            if now < self._compared.get(key, -inf) + COMPARED_EVERY_S:
                continue
            if len(self._compared) >= COMPARED_MAX:
                self._compared.clear()
            self._compared[key] = now
            learnt |= self._learn_variants(key, slot, now)
        return learnt

    def _learn_variants(self, key: bytes, slot: tuple[Record, ...], now: float) -> bool:
        found = None if self.behind is None else self.behind.fetch(key, now)
        if found is None:
            return False
        unknown = [
            one
            for one in found.slot
            if not any(is_same_request(one, it) and one[SOFT] == it[SOFT] for it in slot)
        ]
        self.shelves.add_variants(key, unknown[: max(0, self._rules.variants_max - len(slot))])
        return bool(unknown)

    def peek(
        self, identity: Identity, request: RequestHead, now: float
    ) -> tuple[StoredResponse | None, bool]:
        """Return the entry for this request, as `ResponseStore.peek` does."""
        self.news.look(now)
        return super().peek(identity, request, now)

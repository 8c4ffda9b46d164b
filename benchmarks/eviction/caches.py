"""The caches for the traces: the store's own shelves, LRU, and the best possible one."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Protocol

from benchmarks.eviction.traces import Request
from retter.store.accounting import Shelves
from retter.store.policy import key_of
from retter.store.record import ENTRY_OVERHEAD_BYTES, Record, StoredResponse

BODY_BYTES: Final = 4096
ENTRY_BYTES: Final = ENTRY_OVERHEAD_BYTES + 200  # with its head
PAGE_BYTES: Final = BODY_BYTES + ENTRY_BYTES


class Cache(Protocol):
    """Keeps pages."""

    def ask(self, page: int) -> bool:
        """Ask for a page, which is stored afterwards; whether it was there."""
        ...

    def holds(self, page: int) -> bool:
        """Tell whether a page is there, without asking for it."""
        ...


class Store:
    """The production class, as store.py uses it for what is everyone's."""

    def __init__(self, held: int) -> None:
        self._shelves = Shelves(held * PAGE_BYTES, held * PAGE_BYTES)

    def ask(self, page: int) -> bool:
        """Ask for a page."""
        shelves, key = self._shelves, _key(page)
        if key in shelves.slots:
            shelves.touch(key, b"")
            return True
        body = shelves.acquire_body(b"%0*d" % (BODY_BYTES, page))
        shelves.insert(key, b"", (), _record(body), ENTRY_BYTES)
        return False

    def holds(self, page: int) -> bool:
        """Tell whether a page is there."""
        return _key(page) in self._shelves.slots


class LeastRecentlyUsed:
    """The order of most caches."""

    def __init__(self, held: int) -> None:
        self._held = held
        self._pages: OrderedDict[int, None] = OrderedDict()

    def ask(self, page: int) -> bool:
        """Ask for a page."""
        found = page in self._pages
        self._pages[page] = None
        self._pages.move_to_end(page)
        if len(self._pages) > self._held:
            self._pages.popitem(last=False)
        return found

    def holds(self, page: int) -> bool:
        """Tell whether a page is there."""
        return page in self._pages


def _key(page: int) -> bytes:
    return key_of(b"", b"shop.example/page/%d" % page)


def _record(body: bytes) -> Record:
    return tuple(
        StoredResponse(
            200, b"", body, b"", b"", b"", 0.0, 0.0, False, False, 60.0, b"", (), b"", 0,
            ENTRY_BYTES,
        )
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Played:
    """The result of a trace."""

    hits: float  # of the visitors' requests
    kept: float  # of the pages that they asked for, at the end


def play(trace: Sequence[Request], cache: Cache) -> Played:
    """Play a trace, the first fifth to fill the cache."""
    warm = len(trace) // 5
    asked = hits = 0
    for count, request in enumerate(trace):
        found = cache.ask(request.page)
        if request.is_visitors and count >= warm:
            asked += 1
            hits += found
    pages = {request.page for request in trace if request.is_visitors}
    return Played(hits / asked, sum([cache.holds(page) for page in pages]) / len(pages))


def best(trace: Sequence[Request], held: int) -> float:
    """Return the hits of who knows the future: what is asked for last goes first (Belady 1966)."""
    upcoming = [len(trace)] * len(trace)
    seen: dict[int, int] = {}
    for at in range(len(trace) - 1, -1, -1):
        upcoming[at] = seen.get(trace[at].page, len(trace))
        seen[trace[at].page] = at
    kept: dict[int, int] = {}  # when each is asked for next
    heap: list[tuple[int, int]] = []
    warm = len(trace) // 5
    asked = hits = 0
    for at, request in enumerate(trace):
        if request.is_visitors and at >= warm:
            asked += 1
            hits += request.page in kept
        kept[request.page] = upcoming[at]
        heappush(heap, (-upcoming[at], request.page))
        while len(kept) > held:
            when, page = heappop(heap)
            if kept.get(page) == -when:
                del kept[page]
    return hits / asked

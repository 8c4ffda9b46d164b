"""Traces: which page is asked for after which, by whom. Each is the same for the same seed."""

import random
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

VISITED_PAGES: Final = 500
VISITORS_PER_S: Final = 64  # two fifths of what eight workers of 50 ms can do
CRAWLER_PER_S: Final = 640  # four times what they can do
ALONE_S: Final = 300  # so long the visitors have read before the crawler comes
CRAWL_S: Final = 600


@dataclass(frozen=True, slots=True)
class Request:
    """One GET."""

    page: int
    is_visitors: bool = True


Trace = Iterator[Request]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A trace, and what of the figures has a bar.

    Attributes:
        pages_held: Pages that fit into the store.
        make: From a seed and the number of pages that fit.
        kept_min: So much of the pages that visitors asked for is stored at the end; None: no bar.
    """

    name: str
    about: str
    pages_held: int
    make: Callable[[int, int], Trace]
    kept_min: float | None = None


class Zipf:
    """Draws pages: the one of rank r with a weight of r ** -alpha."""

    def __init__(self, pages: int, alpha: float, chance: random.Random) -> None:
        self._sums = list(accumulate([rank**-alpha for rank in range(1, pages + 1)]))
        self._chance = chance

    def draw(self) -> int:
        """Return the page of the next request."""
        return bisect(self._sums, self._chance.random() * self._sums[-1])


def zipf(alpha: float, seed: int, held: int, requests: int = 100) -> Trace:
    """Visitors alone, at a site ten times as large as the store."""
    draw = Zipf(10 * held, alpha, random.Random(seed)).draw
    return (Request(draw()) for _ in range(requests * held))


def scans(seed: int, held: int) -> Trace:
    """The same, with a search engine that reads the whole site now and then."""
    pages = 10 * held
    scanned = 0
    for count, request in enumerate(zipf(1.0, seed, held)):
        yield request
        if count % (20 * held) < 5 * held:  # a quarter of the time, twice as fast
            for _ in range(2):
                yield Request(scanned % pages, is_visitors=False)
                scanned += 1


def loop(seed: int, held: int) -> Trace:
    """One visitor's script that reads a fifth more pages than fit, round by round."""
    pages = held * 6 // 5
    return (Request(count % pages) for count in range(30 * pages))


def drift(seed: int, held: int) -> Trace:
    """News: what is popular today is another tenth of the site tomorrow."""
    chance = random.Random(seed)
    draw = Zipf(10 * held, 1.0, chance).draw
    for count in range(100 * held):
        yield Request((draw() + count // (10 * held) * held) % (10 * held))


def crawl(seed: int, held: int) -> Trace:
    """Visitors alone for five minutes, then beside a crawler that asks for no page twice."""
    draw = Zipf(VISITED_PAGES, 1.0, random.Random(seed)).draw
    crawled = VISITED_PAGES
    for second in range(ALONE_S + CRAWL_S):
        for _ in range(VISITORS_PER_S):
            yield Request(draw())
            if second >= ALONE_S:
                for _ in range(CRAWLER_PER_S // VISITORS_PER_S):
                    yield Request(crawled, is_visitors=False)
                    crawled += 1


SCENARIOS: Final = (
    Scenario("zipf-1.0", "visitors alone, Zipf 1.0", 2000, lambda s, n: zipf(1.0, s, n)),
    Scenario("zipf-0.8", "visitors alone, Zipf 0.8", 2000, lambda s, n: zipf(0.8, s, n)),
    Scenario("drift", "what is popular changes ten times", 2000, drift),
    Scenario("scans", "visitors, and a search engine that reads all of it", 2000, scans),
    Scenario("loop", "a fifth more pages than fit, in turn", 2000, loop),
    Scenario(
        "crawl",
        "500 visited pages, and a crawler at ten times the visitors' rate for ten minutes",
        3480,  # of 4 KB, in 16 MiB
        crawl,
        kept_min=0.99,
    ),
)

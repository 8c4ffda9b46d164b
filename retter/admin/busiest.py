"""The pages that keep the application busy.

Once a second, the pages in flight are sampled. A page in half of the samples occupies half a worker
(Little's law: arrivals a second times seconds each). So requests themselves are not counted, and
cost nothing more.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

PAGES_MAX: Final = 256  # some 50 KB
PAGE_BYTES_MAX: Final = 200  # of a URL; what follows is cut off
LOOKED_AT_MAX: Final = 256  # requests a look, the oldest ones
SHOWN: Final = 10
TOLD: Final = 32  # to the worker that answers operators: 8 KB

# A sample's weight decays: half as much after two minutes.
HALF_LIFE_S: Final = 120
_FADING: Final = 0.5 ** (1 / HALF_LIFE_S)  # a second
_FORGOTTEN: Final = 0.1  # of a look: what counts for less is dropped


class BusiestPages:
    """How many places of the application each page has occupied lately."""

    def __init__(self) -> None:
        self._seen: dict[bytes, float] = {}
        self._weight = 1.0  # of the present look; the older ones count for less in comparison
        self._looks = 0.0  # sum of the weights

    def __len__(self) -> int:
        return len(self._seen)

    def look(self, in_flight: Iterable[bytes]) -> None:
        """Sample the URLs that are in flight; call it once a second."""
        self._weight /= _FADING
        self._looks += self._weight
        seen = self._seen
        for url in islice(in_flight, LOOKED_AT_MAX):
            page = url.partition(b"?")[0][:PAGE_BYTES_MAX]
            seen[page] = seen.get(page, 0.0) + self._weight
        if len(seen) > PAGES_MAX:
            self._thin_out()
        if self._weight > 1e9:
            self._renormalise()

    def _thin_out(self) -> None:
        """Keep the half that occupied most."""
        most = sorted(self._seen.items(), key=lambda one: -one[1])
        self._seen = dict(most[: PAGES_MAX // 2])

    def _renormalise(self) -> None:
        unit, self._weight = self._weight, 1.0
        self._looks /= unit
        self._seen = {
            page: weight / unit
            for page, weight in self._seen.items()
            if weight / unit >= _FORGOTTEN
        }

    def told(self) -> list[tuple[str, float]]:
        """Return the busiest pages and their places, for the worker that answers operators."""
        return self._places()[:TOLD]

    def _places(self) -> list[tuple[str, float]]:
        most = sorted(self._seen.items(), key=lambda one: -one[1])
        least = _FORGOTTEN * self._weight
        return [
            (page.decode("latin-1"), weight / self._looks)
            for page, weight in most
            if weight >= least
        ]

    def document(self, others: Iterable[Sequence[Any]] = ()) -> list[dict[str, Any]]:
        """Return the busiest pages, the places that each occupied on average, and its share.

        Args:
            others: What other workers have told.
        """
        places = dict(self._places())
        for page, occupied in others:
            places[page] = places.get(page, 0.0) + occupied
        whole = sum(places.values())
        most = sorted(places.items(), key=lambda one: -one[1])[:SHOWN]
        return [
            {"url": page, "places": round(occupied, 3), "share": round(occupied / whole, 3)}
            for page, occupied in most
        ]

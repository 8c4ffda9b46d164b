"""What each of several workers tells the one that answers operators, beside its counters."""

from itertools import islice
from typing import Any, Final

from retter.admin.turns import known_clients, told_clients, waiting_by_lane
from retter.admin.watch import Watch
from retter.proxy.services import Services

HINTS_TOLD: Final = 48  # 10 KB


def lately(services: Services, watch: Watch, now: float) -> dict[str, Any]:
    """Return what this worker alone knows: what keeps it busy, and what it has noticed."""
    return {
        "routes": watch.history.told_routes(),
        "busiest": watch.busiest.told(),
        "clients": told_clients(services),
        "known": known_clients(services),
        "waiting": waiting_by_lane(services),
        "facts": watch.own_facts(now),
        "hints": [
            (name.decode("latin-1"), sentence)
            for name, sentence in islice(services.hints.given.items(), HINTS_TOLD)
        ],
    }


def lanes(services: Services) -> list[list[int]]:
    """Return the requests and the places of each lane since the start."""
    fairness = services.breaker.circuit.fairness
    return [[], []] if fairness is None else [list(fairness.asked), list(fairness.got)]

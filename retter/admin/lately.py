"""What each of several workers tells the one that answers operators, beside its counters."""

from typing import Any

from retter.admin.turns import told_clients
from retter.admin.watch import Watch
from retter.proxy.services import Services


def lately(services: Services, watch: Watch) -> dict[str, Any]:
    """Return the routes, the pages and the clients that keep this worker busy."""
    return {
        "routes": watch.history.told_routes(),
        "busiest": watch.busiest.told(),
        "clients": told_clients(services),
    }


def lanes(services: Services) -> list[list[int]]:
    """Return the requests and the places of each lane since the start."""
    fairness = services.breaker.circuit.fairness
    return [[], []] if fairness is None else [list(fairness.asked), list(fairness.got)]

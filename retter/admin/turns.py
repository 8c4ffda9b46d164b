"""The queue as operators see it: its lanes, and the clients with the largest demand."""

from typing import Any, Final

from retter.admin.history import History
from retter.base.client_id import prefix_of
from retter.breaker import FairnessMode, State
from retter.breaker.demand import NOBODY, WINDOW_S
from retter.breaker.fairness import LANE_WORDS, Fairness
from retter.breaker.permit import HEAVY, KNOWN, STRANGER
from retter.proxy.services import Services
from retter.proxy.turns import is_session_number

CLIENTS_SHOWN: Final = 10
_LANES: Final = (KNOWN, STRANGER, HEAVY)


def turns_document(services: Services, history: History) -> dict[str, Any]:
    """Return the lanes, what visitors get, and the ten clients with the largest demand."""
    breaker = services.breaker
    fairness = breaker.circuit.fairness
    if fairness is None:
        return {"mode": FairnessMode.OFF.value}
    now = services.loop.time()
    visitors, heavy = history.place_shares()
    asked, got = history.add_lanes(list(fairness.asked), list(fairness.got))
    return {
        "mode": breaker.circuit.settings.fairness.value,
        "sorting": breaker.circuit.state is not State.CLOSED,
        "clients": len(fairness.demand),
        "fresh_share": {"visitors": visitors, "heavy": heavy},  # of ten seconds
        "lanes": {
            LANE_WORDS[lane]: {
                "requests": asked[lane],
                "places": got[lane],
                "waiting": breaker.circuit.room.waiting_in(lane),
            }
            for lane in _LANES
        },
        "heaviest": _heaviest(services, history, fairness, now)
        if breaker.circuit.state is not State.CLOSED
        else [],
    }


# A client's number, its name, its demand in all workers, and what it got in this one.
Client = tuple[int, str, float, float]


def told_clients(services: Services) -> list[Client]:
    """Return the clients with the largest demand, for the worker that answers operators."""
    fairness = services.breaker.circuit.fairness
    if fairness is None or services.breaker.circuit.state is State.CLOSED:
        return []
    return _clients(services, fairness, services.loop.time())


def _clients(services: Services, fairness: Fairness, now: float) -> list[Client]:
    return [
        (client, _name_of(services, fairness, client), demand_s, got_s)
        for client, demand_s, got_s in fairness.demand.heaviest(CLIENTS_SHOWN, now)
    ]


def _name_of(services: Services, fairness: Fairness, client: int) -> str:
    name = fairness.demand.name_of(client)
    if client < NOBODY or is_session_number(client):
        return name
    return prefix_of(name, services.settings.client_prefix)


def _heaviest(
    services: Services, history: History, fairness: Fairness, now: float
) -> list[dict[str, Any]]:
    given_s = fairness.demand.given(now) or 1.0
    clients = {
        client: (name, demand_s, got_s)
        for client, name, demand_s, got_s in _clients(services, fairness, now)
    }
    for told in history.others_lately():
        for client, name, demand_s, got_s in told["clients"]:
            own_name, own_s, own_got_s = clients.get(client, (name, 0.0, 0.0))
            clients[client] = (own_name or name, max(own_s, demand_s), own_got_s + got_s)
    rows: list[dict[str, Any]] = []
    most = sorted(clients.items(), key=lambda one: -one[1][1])[:CLIENTS_SHOWN]
    for client, (name, demand_s, got_s) in most:
        crawler = client < NOBODY
        session = is_session_number(client)
        rows.append(
            {
                "client": name,
                "kind": "crawler" if crawler else "session" if session else "address",
                "demand": round(demand_s / WINDOW_S, 3),  # busy workers
                "got": round(got_s / WINDOW_S, 3),
                "share": round(got_s / given_s, 3),  # of the application's work
                "lane": LANE_WORDS[_lane_of(client, fairness, now)],
            }
        )
    return rows


def _lane_of(client: int, fairness: Fairness, now: float) -> int:
    """Return the lane of its requests; one of an address may have a ticket beside."""
    if client < NOBODY or fairness.is_heavy(client, now):
        return HEAVY
    return KNOWN if is_session_number(client) else STRANGER


def heaviest_client(services: Services, history: History, now: float) -> tuple[str, float] | None:
    """Return the client that asks for more than its share, and its part of the work."""
    fairness = services.breaker.circuit.fairness
    if fairness is None or len(fairness.demand) < 2:
        return None  # nobody else is there who could want a share
    rows = _heaviest(services, history, fairness, now)
    heavy = [row for row in rows if row["lane"] == LANE_WORDS[HEAVY]]
    if not heavy:
        return None
    return str(heavy[0]["client"] or heavy[0]["kind"]), float(heavy[0]["share"])

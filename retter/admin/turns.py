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
CLIENTS_TOLD: Final = 256  # by their numbers, to the worker that answers operators: 5 KB
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
    waiting = waiting_by_lane(services)
    for told in history.others_lately():
        waiting = [a + b for a, b in zip(waiting, told["waiting"], strict=True)]
    return {
        "mode": breaker.circuit.settings.fairness.value,
        "sorting": breaker.circuit.state is not State.CLOSED,
        "clients": clients_told_apart(services, history),
        "fresh_share": {"visitors": visitors, "heavy": heavy},  # of ten seconds
        "lanes": {
            LANE_WORDS[lane]: {
                "requests": asked[lane],
                "places": got[lane],
                "waiting": waiting[lane],
            }
            for lane in _LANES
        },
        "heaviest": _heaviest(services, history, fairness, now)
        if breaker.circuit.state is not State.CLOSED
        else [],
    }


def waiting_by_lane(services: Services) -> list[int]:
    """Return how many requests wait in each lane of this process."""
    room = services.breaker.circuit.room
    return [room.waiting_in(lane) for lane in range(len(LANE_WORDS))]


def known_clients(services: Services) -> tuple[int, list[int]]:
    """Return how many clients this process tells apart, and their numbers if they are few."""
    fairness = services.breaker.circuit.fairness
    if fairness is None:
        return 0, []
    count = len(fairness.demand)
    if count > CLIENTS_TOLD:
        return count, []
    known = fairness.demand.heaviest(count, services.loop.time())
    return count, [client for client, _, _ in known]


def clients_told_apart(services: Services, history: History) -> int:
    """Return how many clients all workers tell apart.

    One that comes to two workers counts once, unless a worker knows more than CLIENTS_TOLD.
    """
    others = history.others_lately()
    count, numbers = known_clients(services) if others else (_count(services), [])
    known, further = set(numbers), count - len(numbers)
    for told in others:
        count, numbers = told["known"]
        known.update(numbers)
        further += count - len(numbers)
    return len(known) + further


def _count(services: Services) -> int:
    fairness = services.breaker.circuit.fairness
    return 0 if fairness is None else len(fairness.demand)


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
    if fairness is None or clients_told_apart(services, history) < 2:
        return None  # no other client could get the rest
    rows = _heaviest(services, history, fairness, now)
    heavy = [row for row in rows if row["lane"] == LANE_WORDS[HEAVY]]
    if not heavy:
        return None
    return str(heavy[0]["client"] or heavy[0]["kind"]), float(heavy[0]["share"])

"""Hands a breaker over to another process: its state, the demand, and the order of requests.

During a takeover the new process begins with all that the old one knows: everything learnt
(learnt.py) and, because it is current, the circuit's state.

Times are monotonic seconds; they are the same in all processes of one machine.
"""

from math import isfinite
from typing import Any, Final

from retter.breaker import constants
from retter.breaker.circuit import Circuit
from retter.breaker.demand import DemandTable
from retter.breaker.fairness import Fairness
from retter.breaker.mode import Mode
from retter.breaker.opening import Opening
from retter.breaker.routes import Route
from retter.breaker.states import State
from retter.breaker.tickets import TICKETS_MAX, Tickets
from retter.breaker.window import RollingWindow
from retter.continuity.learnt import learnt, relearn

# Tickets that the old process may issue while it drains. Their numbers are not used here.
TICKETS_LEFT: Final = 65_536

_LIMIT: Final = ("windows", "crowded_windows", "shed_at", "others_rate")
_DIPS: Final = ("_due_at", "_until", "_samples")
_PULSE: Final = ("passed_at", "stalled_at", "woke_at")
_OPENING: Final = ("wait_s", "probe_at")
_ROUTE: Final = ("passed_at", "errors")
_DEMAND: Final = ("_forgotten", "_forgotten_at", "_given", "_given_at")
_FAIRNESS: Final = ("_share_s", "_light_s", "_share_at", "_since")


def state_of(circuit: Circuit) -> dict[str, Any]:
    """Return all that another process needs to continue, in the types of JSON (with Infinity)."""
    table, failures, fairness = circuit.table, circuit.failures, circuit.fairness
    said: dict[str, Any] = {
        "learnt": learnt(circuit),
        "mode": circuit.mode.value,
        "mode_set": circuit.settings.mode.value,
        "state": circuit.state.value,
        "paused_until": circuit.paused_until,
        "pulse": _fields(circuit.pulse, _PULSE),
        "opening": _fields(circuit.opening, _OPENING),
        "limit": _fields(circuit.limit, _LIMIT),
        "dips": _fields(circuit.dips, _DIPS),
        "late_from": table.late_from,
        "trial_at": table.trial_at,
        "failures": [failures.in_a_row, failures.refused_in_a_row, *_outcomes(failures.recent)],
        "routes": [
            [
                route.name.decode("latin-1"), _fields(route, _ROUTE), _outcomes(route.outcomes),
                None if route.opening is None else _fields(route.opening, _OPENING),
                route.first_answers.mean_s, route.first_answers.samples,
            ]
            for route in circuit.routes
        ],
    }  # fmt: skip
    if fairness is not None:
        said["fairness"] = {
            "shares": _fields(fairness, _FAIRNESS),
            "asked": fairness.asked,
            "got": fairness.got,
            "tickets": [fairness.tickets._began_at, fairness.tickets._issued],
            "standing": sorted(fairness.tickets._standing),
            "demand": [getattr(fairness.demand, name) for name in _DEMAND],
        }
    return said


def go_on(circuit: Circuit, said: Any, demand: bytes, spent: bytes, now: float) -> bool:
    """Continue from the state of another process; return False if the arguments are not valid.

    The mode that an operator has forced is taken over, and so is a pause. But if the new process's
    settings have another mode, that mode applies, and the circuit's state is not taken over.

    Args:
        said: The result of `state_of` in the other process.
        demand: The result of `demand_of` there.
        spent: The result of `spent_of` there.
    """
    try:
        mode, mode_set = Mode(said["mode"]), Mode(said["mode_set"])
        state = State(said["state"])
        if not relearn(circuit, said["learnt"], 0.0, now):
            return False
        _restore_figures(circuit, said)
        for name, *rest in said["routes"][: constants.ROUTES_MAX]:
            _restore_route(circuit, circuit.routes.get(name.encode("latin-1"), now), *rest, now=now)
        if circuit.fairness is not None and "fairness" in said:
            shared = said["fairness"]
            _restore_fairness(circuit.fairness, shared, demand, spent, now)
        paused_until = said["paused_until"]
        if paused_until is not None:
            circuit.pause(now, number_of(paused_until))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return False
    if mode is not mode_set or circuit.settings.mode is mode_set:
        circuit.mode, circuit.state = mode, state
    circuit.set_cap()
    return True


def _restore_figures(circuit: Circuit, said: Any) -> None:
    _restore(circuit.pulse, said["pulse"], _PULSE)
    _restore(circuit.opening, said["opening"], _OPENING)
    _restore(circuit.limit, said["limit"], _LIMIT)
    _restore(circuit.dips, said["dips"], _DIPS)
    circuit.table.late_from = number_of(said["late_from"])
    circuit.table.trial_at = number_of(said["trial_at"])
    in_a_row, refused, passed, failed = said["failures"]
    failures = circuit.failures
    failures.in_a_row, failures.refused_in_a_row = int(in_a_row), int(refused)
    failures.recent.passed, failures.recent.failed = int(passed), int(failed)


def _restore_fairness(
    fairness: Fairness, shared: Any, demand: bytes, spent: bytes, now: float
) -> None:
    began_at, issued = shared["tickets"]
    standing = [int(number) for number in shared["standing"]]
    if not (
        restore_demand(fairness.demand, demand, shared["demand"], now)
        and restore_tickets(fairness.tickets, spent, number_of(began_at), int(issued), standing)
    ):
        raise ValueError
    _restore(fairness, shared["shares"], _FAIRNESS)
    fairness.asked = [int(one) for one in shared["asked"]]
    fairness.got = [int(one) for one in shared["got"]]


def _restore_route(
    circuit: Circuit,
    route: Route,
    fields: Any,
    outcomes: list[int],
    opening: Any,
    first_s: float,
    first_samples: int,
    *,
    now: float,
) -> None:
    _restore(route, fields, _ROUTE)
    route.outcomes.passed, route.outcomes.failed = map(int, outcomes)
    if opening is not None:
        settings = circuit.settings
        route.opening = Opening(now, settings.open_min_s, settings.open_max_s)
        _restore(route.opening, opening, _OPENING)
    route.first_answers.mean_s = number_of(first_s)
    route.first_answers.samples = int(first_samples)


def _outcomes(window: RollingWindow) -> list[int]:
    return [window.passed, window.failed]


def _fields(part: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(part, name) for name in names}


def _restore(part: object, said: Any, names: tuple[str, ...]) -> None:
    """Set the figures, each with the type that it has here; None may become a number."""
    for name in names:
        value, before = said[name], getattr(part, name)
        if value is None:
            if before is not None and name != "_since":
                raise ValueError(name)
        elif isinstance(before, bool):
            value = bool(value)
        elif isinstance(before, int):
            value = int(value)
        else:
            value = number_of(value)
        setattr(part, name, value)


def number_of(value: object) -> float:
    """Return a number, which may be infinite.

    Raises:
        ValueError: It is no number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    if value != value:
        raise ValueError  # not a number
    return float(value)


# --- demand and tickets ---


def demand_of(circuit: Circuit) -> bytes:
    """Return the demand table as octets."""
    if circuit.fairness is None:
        return b""
    table = circuit.fairness.demand
    arrays = (table._keys, table._demand, table._got, table._at)
    return b"".join([one.tobytes() for one in arrays])


def spent_of(circuit: Circuit) -> bytes:
    """Return the used tickets, one bit for each ticket."""
    return b"" if circuit.fairness is None else bytes(circuit.fairness.tickets._spent)


def restore_demand(demand: DemandTable, octets: bytes, figures: list[float], now: float) -> bool:
    """Take over another process's table; return False if `octets` is not a table.

    Args:
        figures: The sums that belong to the table.
    """
    size, rest = divmod(len(octets), 4 * 8)
    if rest or size > constants.DEMAND_CLIENTS_MAX or len(figures) != len(_DEMAND):
        return False
    fresh = DemandTable()
    at = 0
    for array in (fresh._keys, fresh._demand, fresh._got, fresh._at):
        array.frombytes(octets[at : at + 8 * size])
        at += 8 * size
    numbers = (*fresh._demand, *fresh._got, *fresh._at, *figures)
    if not all(isfinite(number) and number >= 0 for number in numbers):
        return False
    fresh._names = [""] * size  # each is set again with the next request of its client
    for slot, client in enumerate(fresh._keys):
        if client:
            fresh._slots[client] = slot
        else:
            fresh._free.append(slot)
    if len(fresh._slots) + len(fresh._free) != size or any(one > now for one in fresh._at):
        return False
    for name, value in zip(_DEMAND, figures, strict=True):
        setattr(fresh, name, float(value))
    for name in (*_DEMAND, "_slots", "_free", "_keys", "_demand", "_got", "_at", "_names"):
        setattr(demand, name, getattr(fresh, name))
    return True


def restore_tickets(
    tickets: Tickets, spent: bytes, began_at: float, issued: int, standing: list[int]
) -> bool:
    """Take over the tickets of another process: the used ones, and those that wait in its queue.

    Both processes must have the same secret. The numbers of tickets that the other process may
    still issue are left free.
    """
    if len(spent) not in (0, TICKETS_MAX // 8) or not isfinite(began_at) or issued < 0:
        return False
    tickets._began_at = began_at
    tickets._spent = bytearray(spent)
    tickets._issued = issued
    tickets._standing = set(standing)
    if spent:
        for number in range(issued, issued + TICKETS_LEFT):
            bit = number % TICKETS_MAX
            tickets._spent[bit >> 3] &= ~(1 << (bit & 7)) & 0xFF
        tickets._issued += TICKETS_LEFT
    return True

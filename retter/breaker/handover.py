"""Hands a breaker over to another process: its state, the demand, and the order of requests.

During a takeover two processes serve one application for some seconds. The new process begins with
all that the old one knows: everything learnt (learnt.py) and, because it is current, the circuit's
state. From then on each process reports to the other twenty times a second what it has in flight
(`Shared`), so that together they stay within one limit.

Times are monotonic seconds; they are the same in all processes of one machine.
"""

from math import isfinite
from typing import Any, Final

from retter.breaker import constants
from retter.breaker.circuit import Circuit
from retter.breaker.demand import DemandTable
from retter.breaker.fairness import Fairness
from retter.breaker.learnt import learnt, relearn
from retter.breaker.mode import Mode
from retter.breaker.opening import Opening
from retter.breaker.routes import Route
from retter.breaker.states import State
from retter.breaker.tickets import TICKETS_MAX, Tickets
from retter.breaker.window import RollingWindow

# Tickets that the old process may issue while it drains. Their numbers are not used here.
TICKETS_LEFT: Final = 65_536

_COMPARED_BYTES: Final = 1024

# While the other process has more than this share of the requests in flight, the answers of this
# process say nothing about the application's work rate.
OTHERS_SHARE: Final = 0.25

_LIMIT: Final = ("windows", "crowded_windows", "shed_at")
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
            circuit.pause(now, _number(paused_until))
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
    circuit.table.late_from = _number(said["late_from"])
    circuit.table.trial_at = _number(said["trial_at"])
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
        and restore_tickets(fairness.tickets, spent, _number(began_at), int(issued), standing)
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
    route.first_answers.mean_s = _number(first_s)
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
            value = _number(value)
        setattr(part, name, value)


def _number(value: object) -> float:
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


# --- two processes, one application ---


class Shared:
    """Counts the other process's requests in flight here too.

    They are added to this process's own requests in flight. So every rule of the breaker sees all
    requests that the application sees.

    Args:
        comes: Whether this is the new process, which took over the other one's state.
    """

    def __init__(self, circuit: Circuit, *, comes: bool) -> None:
        self._circuit = circuit
        self._others = 0  # in flight in the other process, counted here
        self._orders_sent: tuple[str, float | None] = (circuit.mode.value, circuit.paused_until)
        self._standing: set[int] = set()  # own tickets in the queue, as last reported
        self._theirs: set[int] = set()  # tickets in the other process's queue, kept here too
        self._spent = b""
        if circuit.fairness is not None:
            standing = set(circuit.fairness.tickets._standing)
            self._standing, self._theirs = (set(), standing) if comes else (standing, set())
            self._spent = bytes(circuit.fairness.tickets._spent)

    @property
    def others(self) -> int:
        """Number of requests in flight in the other process, as counted here."""
        return self._others

    def report(self) -> dict[str, Any]:
        """Return the report for the other process."""
        circuit = self._circuit
        said: dict[str, Any] = {
            "in_flight": circuit.limit.in_flight - self._others,
            "passed_at": circuit.pulse.passed_at,
        }
        orders = (circuit.mode.value, circuit.paused_until)
        if orders != self._orders_sent:  # an operator's command applies to both processes
            self._orders_sent = orders
            said["told"] = orders
        if circuit.fairness is not None:
            said |= self._tickets_report(circuit.fairness.tickets)
        return said

    def _tickets_report(self, tickets: Tickets) -> dict[str, Any]:
        said: dict[str, Any] = {}
        standing = tickets._standing - self._theirs
        if standing != self._standing:
            said["stand"] = sorted(standing - self._standing)
            said["left"] = sorted(self._standing - standing)
            self._standing = standing
        spent = bytes(tickets._spent)
        if spent != self._spent:
            said["spent"] = _bits(spent, self._spent)
            self._spent = spent
        return said

    def take(self, said: Any, now: float) -> None:
        """Take in a report of the other process.

        Raises:
            ValueError: `said` is not a report.
        """
        try:
            in_flight = int(said["in_flight"])
            passed_at = _number(said["passed_at"])
            orders = said.get("told")
            lists = [
                [int(one) for one in said.get(name, ())] for name in ("stand", "left", "spent")
            ]
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            raise ValueError("no report") from None
        circuit = self._circuit
        self._count(in_flight)
        circuit.pulse.passed_at = max(circuit.pulse.passed_at, min(now, passed_at))
        if in_flight > OTHERS_SHARE * circuit.limit.in_flight:
            circuit.limit.restart_window(now)
        if orders is not None:
            self._follow(now, *orders)
        if circuit.fairness is not None:
            self._take_tickets(circuit.fairness.tickets, *lists)

    def _follow(self, now: float, mode: str, paused_until: float | None) -> None:
        circuit = self._circuit
        circuit.set_mode(now, Mode(mode))
        if paused_until is not None:
            circuit.pause(now, _number(paused_until))
        elif circuit.paused_until is not None:
            circuit.resume(now)
        self._orders_sent = (circuit.mode.value, circuit.paused_until)

    def _take_tickets(
        self, tickets: Tickets, stand: list[int], left: list[int], spent: list[int]
    ) -> None:
        for number in stand:
            if number not in tickets._standing:
                tickets._standing.add(number)
                self._theirs.add(number)
        for number in left:
            self.stands_no_more(tickets, number)
        if spent:
            if not tickets._spent:
                tickets._spent = bytearray(TICKETS_MAX // 8)
            known = bytearray(self._spent or bytes(TICKETS_MAX // 8))
            for bit in spent:
                for bits in (tickets._spent, known):
                    bits[bit % TICKETS_MAX >> 3] |= 1 << (bit & 7)
            self._spent = bytes(known)

    def stands_no_more(self, tickets: Tickets, number: int) -> None:
        """Take in that a ticket left the other process's queue."""
        if number in self._theirs:
            self._theirs.discard(number)
            tickets._standing.discard(number)

    def forget(self) -> None:
        """Count nothing in flight in the other process until its next report: it is not known."""
        self._count(0)

    def end(self) -> None:
        """Take in that the other process ended: it has nothing in flight any more."""
        self._count(0)
        if self._circuit.fairness is not None:
            for number in list(self._theirs):
                self.stands_no_more(self._circuit.fairness.tickets, number)

    def _count(self, in_flight: int) -> None:
        circuit, more = self._circuit, in_flight - self._others
        self._others = in_flight
        circuit.limit.in_flight += more
        circuit.limit.weigh()


def _bits(now: bytes, before: bytes) -> list[int]:
    """Return the positions of the bits that are set in `now` and not in `before`."""
    numbers: list[int] = []
    for begin in range(0, len(now), _COMPARED_BYTES):
        end = begin + _COMPARED_BYTES
        if now[begin:end] == before[begin:end]:
            continue
        for at in range(begin, min(end, len(now))):
            new = now[at] & ~(before[at] if before else 0)
            numbers += [8 * at + bit for bit in range(8) if new >> bit & 1]
    return numbers

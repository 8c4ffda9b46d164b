"""Two processes that serve one application for some seconds, during a takeover.

Each process reports to the other twenty times a second what it has in flight, so that together they
stay within one limit.
"""

from typing import Any, Final

from retter.breaker.circuit import Circuit
from retter.breaker.mode import Mode
from retter.breaker.tickets import TICKETS_MAX, Tickets
from retter.continuity.handover import number_of

_COMPARED_BYTES: Final = 1024

# While the other process has more than this share of the requests in flight, the answers of this
# process say nothing about the application's work rate.
OTHERS_SHARE: Final = 0.25


class Shared:
    """Counts the other process's requests in flight here too.

    They are added to this process's own requests in flight. So every rule of the breaker sees all
    requests that the application sees.

    Args:
        comes: Whether this is the new process, which took over the other process's state.
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
        """Apply a report of the other process.

        Raises:
            ValueError: `said` is not a report.
        """
        try:
            in_flight = int(said["in_flight"])
            passed_at = number_of(said["passed_at"])
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
            circuit.pause(now, number_of(paused_until))
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
        """Note that a ticket left the other process's queue."""
        if number in self._theirs:
            self._theirs.discard(number)
            tickets._standing.discard(number)

    def forget(self) -> None:
        """Count nothing in flight in the other process until its next report."""
        self._count(0)

    def end(self) -> None:
        """Note that the other process ended: it has nothing in flight any more."""
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

"""Exchanges that hold a permit of the breaker and wait: for a place, or for a slow answer."""

from typing import Protocol, cast

from retter.breaker import Permit
from retter.net.supervision import report
from retter.proxy.interfaces import Work
from retter.proxy.services import Services


class Queued(Protocol):
    """An exchange that has not begun."""

    def take_turn(self, now: float) -> bool: ...
    def keep_from_store(self) -> None: ...


def holder_of(permit: Permit) -> Work:
    """Return the object that carries out the request of a permit."""
    assert isinstance(permit.holder, Work), "who holds it"
    return permit.holder


def queued_holder_of(permit: Permit) -> Queued:
    """Return the exchange that waits with a permit for its place."""
    return cast("Queued", holder_of(permit))


def start_waiting(services: Services, now: float) -> None:
    """Start the waiting exchanges for which a place has become free."""
    free = True
    while free and services.breaker.waiting:
        free = False
        for permit in services.breaker.take_ready(now):
            exchange = queued_holder_of(permit)
            try:
                free |= not exchange.take_turn(now)
            except Exception as error:  # noqa: BLE001 - the others must go on
                end_broken(services, holder_of(permit), error, now)


def resume(services: Services, now: float) -> int:
    """End a pause of the application at once; return how many requests it has held."""
    held = services.breaker.circuit.resume(now)
    start_waiting(services, now)
    return held


def end_overdue(services: Services, now: float) -> None:
    """Let the breaker's clock run, and end the waits that are over."""
    for permit in services.breaker.tick(now):
        holder = holder_of(permit)
        try:
            holder.overdue(permit.reason, now)
        except Exception as error:  # noqa: BLE001 - the others are overdue as well
            end_broken(services, holder, error, now)


def end_broken(services: Services, holder: Work, error: Exception, now: float) -> None:
    """End an exchange after a fault of our own: free its client and its place."""
    report(services.loop, "an exchange has failed", error)
    holder.broken(now)

"""Log lines when no connection to the application is possible, and when it is possible again.

The same for the resolver of its name. Each is logged once: a line for every refused request would
bury the log.

While no connection can be made and no visitor comes, the address is tried every few seconds.
Otherwise the fault would be shown until the next request, even if the application is up again.
"""

import asyncio
from collections.abc import Callable

from retter.net.supervision import start_task
from retter.proxy.services import Services
from retter.telemetry.log import get_logger

# An application that comes and goes gets six lines a minute at most.
AGAIN_S = 10.0

# One connection, closed at once: so an application that has come back is noticed soon.
TRY_S = 5.0

log = get_logger()


class Spell:
    """A fault that lasts from one moment to another."""

    def __init__(self) -> None:
        self.since: float | None = None  # None: there was no fault at the last look
        self._again_at = float("-inf")

    def begins(self, fault: str, now: float) -> bool:
        """Return whether the fault is to be reported now."""
        if not fault or self.since is not None or now < self._again_at:
            return False
        self.since = now
        self._again_at = now + AGAIN_S
        return True

    def ends(self, fault: str, now: float) -> float | None:
        """Return how long it lasted, in seconds, if its end is to be reported."""
        if fault or self.since is None:
            return None
        lasted_s, self.since = now - self.since, None
        return lasted_s


class Absence:
    """Called once a second with the time.

    Args:
        probe: Tries the application's address once, and sets the pool's `fault`.
    """

    def __init__(self, services: Services, probe: Callable[[], None]) -> None:
        self._services = services
        self._probe = probe
        self._dials = services.pool.dials
        self._tried_at = services.loop.time()  # by a request or by the probe
        self._application = Spell()
        self._resolver = Spell()

    def on_second(self, now: float) -> None:
        """Check whether the last attempts to connect and to resolve failed."""
        self._try_again(now)
        self._look_for_application(now)
        self._look_for_resolver(now)

    def _try_again(self, now: float) -> None:
        pool = self._services.pool
        if pool.dials != self._dials or not pool.fault:
            self._dials, self._tried_at = pool.dials, now
        elif now - self._tried_at >= TRY_S:
            self._tried_at = now
            self._probe()

    def _look_for_application(self, now: float) -> None:
        fault, upstream = self._services.pool.fault, self._services.settings.upstream
        if self._application.begins(fault, now):
            log.warning(
                "application-absent",
                upstream=upstream,
                error=fault,
                advice="is it running, and is --upstream right? What is not stored gets a 502",
            )
        elif (absent_s := self._application.ends(fault, now)) is not None:
            log.info("application-back", upstream=upstream, absent_s=round(absent_s))

    def _look_for_resolver(self, now: float) -> None:
        fault, upstream = self._services.pool.resolver.fault, self._services.settings.upstream
        if self._resolver.begins(fault, now):
            log.warning(
                "resolver-fails",
                upstream=upstream,
                error=fault,
                advice="the last known addresses are used meanwhile",
            )
        elif (failed_s := self._resolver.ends(fault, now)) is not None:
            log.info("resolver-back", upstream=upstream, failed_s=round(failed_s))


class AddressProbe:
    """Tries the application's address: at the start, and whenever it is asked to."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._task = self._start()

    def _start(self) -> "asyncio.Task[None]":
        services = self._services
        return start_task(services.loop, services.pool.probe(), "trying the application's address")

    def again(self) -> None:
        """Try it once more, unless the last attempt still goes on."""
        if self._task.done():
            self._task = self._start()

    def cancel(self) -> None:
        """Try it no more."""
        self._task.cancel()

"""Log lines when no connection to the application is possible, and when it is possible again.

The resolver of its name is watched in the same way. Each change is logged once: a line for every
refused request would hide all other lines.
"""

from retter.proxy.services import Services
from retter.telemetry.log import get_logger

# An application that comes and goes gets six lines a minute at most.
AGAIN_S = 10.0

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
    """Called once a second with the time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._application = Spell()
        self._resolver = Spell()

    def on_second(self, now: float) -> None:
        """Check whether the last attempts to connect and to resolve have failed."""
        self._look_for_application(now)
        self._look_for_resolver(now)

    def _look_for_application(self, now: float) -> None:
        fault, upstream = self._services.pool.fault, self._services.settings.upstream
        if self._application.begins(fault, now):
            log.warning(
                "application-absent", upstream=upstream, error=fault,
                advice="is it running, and is --upstream right? What is not stored gets a 502",
            )  # fmt: skip
        elif (absent_s := self._application.ends(fault, now)) is not None:
            log.info("application-back", upstream=upstream, absent_s=round(absent_s))

    def _look_for_resolver(self, now: float) -> None:
        fault, upstream = self._services.pool.resolver.fault, self._services.settings.upstream
        if self._resolver.begins(fault, now):
            log.warning(
                "resolver-fails", upstream=upstream, error=fault,
                advice="the last known addresses are used meanwhile",
            )  # fmt: skip
        elif (failed_s := self._resolver.ends(fault, now)) is not None:
            log.info("resolver-back", upstream=upstream, failed_s=round(failed_s))

"""Says when no connection to the application can be made, and why; and when one can again.

Once each: a line for every request that was refused would bury the log just then.
"""

from typing import TYPE_CHECKING

from retter.log import get_logger

if TYPE_CHECKING:
    from retter.proxy import Proxy

# An application that comes and goes is told of six times a minute at most.
AGAIN_S = 10.0

log = get_logger()


class Absence:
    """Told the time once a second."""

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy
        self._since: float | None = None     # None: it was there when we looked last
        self._again_at = float("-inf")

    def on_second(self, now: float) -> None:
        """Look whether the last attempt to connect was in vain."""
        fault, since = self._proxy.pool.fault, self._since
        if fault and since is None and now >= self._again_at:
            self._since = now
            self._again_at = now + AGAIN_S
            log.warning(
                "application-absent", upstream=self._proxy.settings.upstream, error=fault,
                advice="is it running, and is --upstream right? What is not stored gets 502",
            )  # fmt: skip
        elif since is not None and not fault:
            self._since = None
            log.info(
                "application-back", upstream=self._proxy.settings.upstream,
                absent_s=round(now - since),
            )  # fmt: skip

"""A log line when the application refuses very many of its pages, so that none is withdrawn.

It is logged once, and again only after a while without such refusals: a broken deployment may last.
"""

from retter.proxy.services import Services
from retter.telemetry.log import get_logger

# After this many seconds without mass refusals, the next ones are logged again.
AGAIN_S = 600.0

log = get_logger()


class WithdrawalLog:
    """Called once a second with the time."""

    def __init__(self, services: Services) -> None:
        self._withdrawals = services.withdrawals
        self._seen_at = float("-inf")  # when there were mass refusals for the last time

    def on_second(self, now: float) -> None:
        """Check whether many pages are refused."""
        withdrawals = self._withdrawals
        if not withdrawals.mass:
            return
        before, self._seen_at = self._seen_at, now
        if now - before > AGAIN_S:
            log.warning(
                "refused-pages-kept",
                pages=withdrawals.pages,
                of=withdrawals.recent,
                advice="is a deployment broken? Many pages answer 4xx; their stored responses are "
                "kept. retter purge removes them",
            )

"""Reports that the application refuses very many of its pages, so that none of them is withdrawn.

Once, and again after a while without it: such a deployment may last.
"""

from retter.proxy.services import Services
from retter.telemetry.log import get_logger

# Without a mass of refusals for so many seconds, the next is worth another line.
AGAIN_S = 600.0

log = get_logger()


class WithdrawalLog:
    """Called once a second with the time."""

    def __init__(self, services: Services) -> None:
        self._withdrawals = services.withdrawals
        self._seen_at = float("-inf")  # when there was a mass at last

    def on_second(self, now: float) -> None:
        """Check whether many pages are refused."""
        withdrawals = self._withdrawals
        if not withdrawals.mass:
            return
        before, self._seen_at = self._seen_at, now
        if now - before > AGAIN_S:
            log.warning(
                "refused-pages-kept", pages=withdrawals.pages, of=withdrawals.recent,
                advice="is a deployment broken? Many pages answer 4xx; their stored responses are "
                "kept. retter purge removes them",
            )  # fmt: skip

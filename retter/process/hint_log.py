"""Log lines for hints (hints.py): each hint is logged once."""

from retter.proxy.services import Services
from retter.telemetry.log import get_logger

log = get_logger()


class HintLog:
    """Called once a second with the time."""

    def __init__(self, services: Services) -> None:
        self._hints = services.hints
        self._logged = 0

    def on_second(self, now: float) -> None:
        """Log new hints."""
        given = list(self._hints.given.values())
        for advice in given[self._logged :]:
            log.info("hint", advice=advice)
        self._logged = len(given)

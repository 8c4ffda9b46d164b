"""Writes each hint (hints.py) once."""

from typing import TYPE_CHECKING

from retter.telemetry.log import get_logger

if TYPE_CHECKING:
    from retter.proxy.proxy import Proxy

log = get_logger()


class HintLog:
    """Told the time once a second."""

    def __init__(self, proxy: "Proxy") -> None:
        self._hints = proxy.hints
        self._told = 0

    def on_second(self, now: float) -> None:
        """Write what is new."""
        given = list(self._hints.given.values())
        for advice in given[self._told :]:
            log.info("hint", advice=advice)
        self._told = len(given)

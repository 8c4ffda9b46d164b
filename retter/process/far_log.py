"""Log lines about the server of `--shared`: whether it can be used, and the number of boxes."""

from retter.proxy.services import Services
from retter.telemetry.log import get_logger

log = get_logger()


class FarLog:
    """Called once a second with the time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._away = False
        self._boxes = 1

    def on_second(self, now: float) -> None:
        """Log what has changed."""
        far, place = self._services.far, self._services.place
        if far is None or (place is not None and not place.leads):
            return  # the first worker logs it for all
        trouble = far.away(now)
        if trouble and not self._away:
            log.warning(
                "shared-store-away",
                error=trouble,
                advice="this box goes on by itself, and shares again when it is back",
            )
        elif self._away and not trouble:
            log.info("shared-store-back")
        self._away = bool(trouble)
        if far.boxes != self._boxes:
            log.info("boxes", boxes=far.boxes, before=self._boxes)
            self._boxes = far.boxes

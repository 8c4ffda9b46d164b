"""Log lines about the store on disk: set aside, not writable, writable again, given up."""

from retter.proxy.services import Services
from retter.telemetry.log import get_logger

log = get_logger()


def log_damaged_drops(path: str) -> None:
    """Log that all stored responses were removed, since it is not known which had to be."""
    log.warning(
        "store-drops-damaged",
        store=path,
        advice="which responses were dropped before the last end cannot be read, so all of them "
        "are; look after the disk",
    )


class DiskLog:
    """Called once a second with the time."""

    def __init__(self, services: Services) -> None:
        self._disk = services.disk
        self._set_aside_logged = False
        self._drops_logged = False
        self._trouble_logged = False
        self._failing = False
        self._failures = 0
        self._commits = 0
        self._damaged = 0

    def on_second(self, now: float) -> None:
        """Log what has changed."""
        disk = self._disk
        if disk is None:
            return
        figures = disk.figures
        if disk.set_aside and not self._set_aside_logged:
            self._set_aside_logged = True
            log.warning(
                "store-set-aside",
                reason=disk.set_aside,
                store=disk.path,
                advice=f"it is kept as {disk.path}.broken-TIME; RETTER began a new one",
            )
        if disk.drops_damaged and not self._drops_logged:
            self._drops_logged = True
            log_damaged_drops(disk.path)
        if disk.trouble and not self._trouble_logged:
            self._trouble_logged = True
            log.error(
                "store-failed",
                error=disk.trouble,
                store=disk.path,
                advice="RETTER serves from memory; the next start "
                + ("uses the file again" if disk.is_spared else "sets the file aside"),
            )
        if figures.commit_failures > self._failures:
            if not self._failing:
                log.error(
                    "store-not-written",
                    error=figures.last_failure,
                    store=disk.path,
                    advice="RETTER serves from memory and tries again every five seconds",
                )
            self._failing = True
            self._failures, self._commits = figures.commit_failures, figures.commits
        elif self._failing and figures.commits > self._commits:
            log.info("store-written-again", store=disk.path)
            self._failing = False
        if figures.damaged > self._damaged:
            log.warning("store-damaged", responses=figures.damaged - self._damaged, store=disk.path)
            self._damaged = figures.damaged

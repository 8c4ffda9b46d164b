"""Log lines when the access log cannot be written, as on a full disk, and when it can be again.

At once: its lines wait in memory meanwhile (line_writer.py), and none is lost yet.
"""

from retter.process.upstream_watch import Spell
from retter.proxy.services import Services
from retter.telemetry.line_writer import WAITING_BYTES_MAX
from retter.telemetry.log import get_logger

log = get_logger()


class AccessLogWatch:
    """Called once a second with the time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._spell = Spell()

    def on_second(self, now: float) -> None:
        """Log what has changed."""
        access_log = self._services.access_log
        trouble = "" if access_log is None else access_log.trouble
        if access_log is not None and self._spell.begins(trouble, now):
            log.warning(
                "access-log-not-written",
                error=trouble,
                path=access_log.path,
                advice=f"up to {WAITING_BYTES_MAX >> 20} MiB of lines wait in memory, all others "
                "are dropped",
            )
        elif (lasted_s := self._spell.ends(trouble, now)) is not None:
            log.info("access-log-written-again", lasted_s=round(lasted_s))

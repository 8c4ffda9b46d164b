"""Signals of the whole program: stop, reload, hand over to a successor."""

import asyncio
import math
import os
import signal
from collections.abc import Callable

from retter.config.settings import ConfigError, Settings
from retter.net import systemd
from retter.net.handover import Successor
from retter.process import early_signals
from retter.process.descriptors import fit_descriptors
from retter.process.running import RunningProxy
from retter.telemetry.log import configure as configure_log
from retter.telemetry.log import get_logger

# A second signal ends the process at once only if it comes later than this. One request to stop may
# arrive twice: Ctrl-C and `kill -- -GROUP` reach this process and its parent, which passes it on.
SAME_SIGNAL_S = 1.0

# Time for a successor to serve. It needs half a second, or a minute on a machine that swaps.
SUCCESSOR_S = 60.0

Reread = Callable[[], Settings]

log = get_logger()


class Signals:
    """The signal handlers of the whole program.

    SIGTERM and SIGINT drain and stop, SIGHUP reloads the configuration, SIGUSR2 starts a successor
    that takes over.
    """

    def __init__(self, proxy: RunningProxy, reread: Reread) -> None:
        self._proxy = proxy
        self._reread = reread
        self._loop = asyncio.get_running_loop()
        self._asked_at = math.inf
        self._reload_asked = False
        self._too_late: asyncio.TimerHandle | None = None  # ends a successor that does not serve
        self._successor: Successor | None = None
        self._stopping = asyncio.Event()
        self.pid_after = 0  # the successor's, once it serves
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_take_over)
        early_signals.release()

    async def wait_for_stop(self) -> None:
        """Return when it is time to drain."""
        await self._stopping.wait()
        if self._successor is not None and self._too_late is not None:
            self._too_late.cancel()
            self._loop.remove_reader(self._successor.ready_fd)
            self._successor.end()

    def _on_stop(self) -> None:
        now = self._loop.time()
        if now - self._asked_at > SAME_SIGNAL_S:
            log.warning("stopped", drained=False)
            os._exit(1)  # the second signal means now
        self._asked_at = min(self._asked_at, now)
        self._stopping.set()

    def _on_hangup(self) -> None:
        # Many signals at once cause one reload: a reload reads all files and blocks the loop.
        if not self._reload_asked:
            self._reload_asked = True
            self._loop.call_soon(self._on_reload)

    def _on_reload(self) -> None:
        self._reload_asked = False
        systemd.notify_reloading()
        try:
            new = self._proxy.reload(fit_descriptors(self._reread()))
        except ConfigError as error:
            log.error("reload-failed", error=str(error), advice="nothing has changed")
        else:
            configure_log(new.settings.log_format, new.settings.log_level)
            log.info("reloaded", changed=new.changed)
            if new.restart:
                log.warning("needs-restart", settings=new.restart)
        systemd.notify("READY=1")

    def _on_take_over(self) -> None:
        if self._successor is not None or self._stopping.is_set():
            return
        try:
            self._successor = self._proxy.hand_over()
        except OSError as error:
            self._proxy.not_handed_over()
            log.error("takeover-failed", error=error.strerror, advice="nothing has changed")
            return
        log.info("takeover", successor=self._successor.pid)
        self._loop.add_reader(self._successor.ready_fd, self._on_successor)
        self._too_late = self._loop.call_later(SUCCESSOR_S, self._on_too_late)

    def _on_too_late(self) -> None:
        """Stop waiting for a successor that neither serves nor ends; another may be started."""
        assert self._successor is not None, "else the timer is cancelled"
        log.warning(
            "takeover-late", successor=self._successor.pid, advice="the successor is stopped"
        )
        self._successor.kill()  # its end makes ready_fd readable, so _on_successor is called

    def _on_successor(self) -> None:
        successor, self._successor = self._successor, None
        assert successor is not None and self._too_late is not None
        self._too_late.cancel()
        self._loop.remove_reader(successor.ready_fd)
        if not successor.serves():
            self._proxy.not_handed_over()
            log.error(
                "takeover-failed", exit_code=successor.exit_code(), advice="nothing has changed"
            )
            return
        self._proxy.handed_over()
        self.pid_after = successor.pid
        self._asked_at = self._loop.time()
        self._stopping.set()

"""One of several workers: a process that its supervisor has forked.

It serves as a single process does, with its share of the settings. It begins, reloads and ends as
its supervisor tells it, and ends by itself when the supervisor has ended.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from retter.base.worker_place import WorkerPlace
from retter.config.settings import ConfigError, Settings
from retter.judgement.breaker import SharedBreaker
from retter.net.handover import Inheritance
from retter.net.sockets import ListenError
from retter.process.descriptors import fit_descriptors
from retter.process.loop_errors import end_out_of_memory
from retter.process.running import RunningProxy, running
from retter.process.serving import log_each_second, log_situations, run_on_loop, settle
from retter.process.store_place import StorePlace
from retter.process.transition_log import TransitionLog
from retter.process.upstream_watch import AddressProbe
from retter.process.worker_link import Kind, Message, WorkerLink
from retter.process.worker_settings import share_of
from retter.proxy.lasting import keep_rules
from retter.proxy.secrets import Secrets
from retter.telemetry.line_writer import CLOSE_S
from retter.telemetry.log import configure as configure_log
from retter.telemetry.log import flush as flush_log
from retter.telemetry.log import forked, get_logger

if TYPE_CHECKING:
    from retter.disk.shared_behind import SharedBehind

# A worker whose supervisor was killed has this long to finish its requests. A new supervisor cannot
# open the store before.
ORPHAN_S = 1.0

# The supervisor's message that another process serves on the same sockets from now on.
HANDED_OVER = "handed over"

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """The parts that a worker gets from its supervisor.

    Attributes:
        settings: The settings of RETTER as a whole.
        reread: Returns the settings that the supervisor has read.
        sockets: Its listening sockets.
        link: Its end of the link to the supervisor.
        secrets: The secrets of all workers.
        store: The folder of the store that all of them share.
    """

    settings: Settings
    reread: Callable[[], Settings]
    place: WorkerPlace
    sockets: list[socket.socket]
    link: socket.socket
    secrets: Secrets
    store: StorePlace

    def share_of(self, settings: Settings) -> Settings:
        """Return this worker's share of settings of the whole.

        Raises:
            ConfigError: There is not enough for each.
        """
        place, store = self.place, self.store
        share = share_of(
            settings,
            place.workers,
            index=place.index,
            store=store.path,
            store_bytes=store.bytes_max,
        )
        return fit_descriptors(share)  # each process has its own


class Worker:
    """A worker that serves."""

    def __init__(self, parts: WorkerParts, proxy: RunningProxy, link: WorkerLink) -> None:
        self._parts = parts
        self._proxy = proxy
        self._link = link
        self._loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        link.on_message = self._on_message
        link.on_end = self._on_orphaned
        self._loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_take_over)
        self.beat(self._loop.time())

    def beat(self, now: float) -> None:
        """Show that this process is alive."""
        place = self._parts.place
        place.shared.beat(place.place, now)

    def _on_message(self, message: Message) -> None:
        if message.kind is Kind.DRAIN:
            if message.text == HANDED_OVER:
                self._proxy.handed_over()
                if (behind := self._shared_behind()) is not None and behind.holds:
                    behind.close()
            self.stopping.set()
        elif message.kind is Kind.RELOAD:
            self._reload()
        elif message.kind is Kind.CLOSE_STORE:
            self._close_store()
        elif message.kind is Kind.OPEN_STORE:
            self._open_store()
        elif message.kind is Kind.LEAVE_STORE:
            disk = self._proxy._services.disk
            if disk is not None:
                disk.leave(message.text)

    def _shared_behind(self) -> "SharedBehind | None":
        disk = self._proxy._services.disk
        if disk is None:
            return None
        from retter.disk.shared_shelf import SharedShelf

        assert isinstance(disk, SharedShelf), "lasting.py opens it for a worker"
        return disk.shared_behind

    def _close_store(self) -> None:
        if (behind := self._shared_behind()) is not None:
            behind.hold()
        learnt = self._proxy._services.learnt
        if learnt is not None:  # the next process begins with it
            learnt.save(self._loop.time())
        self._link.tell(Kind.CLOSED)

    def _open_store(self) -> None:
        services, behind = self._proxy._services, self._shared_behind()
        if behind is None or services.disk is None:
            return
        # A successor that has ended may have noted its own.
        keep_rules(services.disk, services.owner_rules, services.settings.store_policy)
        behind.release()

    def _reload(self) -> None:
        try:
            new = self._proxy.reload(self._parts.share_of(self._parts.reread()))
        except ConfigError as error:
            self._link.tell(Kind.NOT_RELOADED, str(error))
        else:
            configure_log(new.settings.log_format, new.settings.log_level)
            self._link.tell(Kind.RELOADED)

    def _on_terminate(self) -> None:
        """Drain after a SIGTERM to this worker alone; the supervisor starts another one."""
        self._link.tell(Kind.DRAINING)
        self.stopping.set()

    def _on_take_over(self) -> None:
        """Pass SIGUSR2 on to the supervisor: it alone can start a successor."""
        if self.stopping.is_set():
            return  # for instance because the supervisor was killed
        log.info("signal-passed-on", signal="SIGUSR2", supervisor=os.getppid())
        self._link.tell(Kind.TAKE_OVER)

    def _on_orphaned(self) -> None:
        services = self._proxy._services
        services.settings = replace(
            services.settings, drain_s=min(ORPHAN_S, services.settings.drain_s)
        )
        log.warning("supervisor-gone", advice="this worker ends")
        self.stopping.set()


async def serve(parts: WorkerParts) -> int:
    """Serve until the supervisor wants an end, or has ended."""
    loop, place = asyncio.get_running_loop(), parts.place
    link = WorkerLink(parts.link, loop)
    settings = parts.share_of(parts.settings)
    transitions = TransitionLog()
    async with running(
        settings,
        transitions.on_transition,
        by_itself=True,
        inheritance=Inheritance.of_supervisor(parts.sockets),
        place=place,
        secrets=parts.secrets,
    ) as proxy:
        faults = settle(proxy, loop)
        worker = Worker(parts, proxy, link)
        proxy.on_second(worker.beat)
        watch = proxy.watch()
        leads, breaker = place.leads, proxy._services.breaker
        assert isinstance(breaker, SharedBreaker), "there are several workers"
        transitions.judges = lambda: breaker.leads
        tell_figures = proxy.tell_figures(
            watch, leads=leads, metrics=parts.settings.admin not in ("off", "")
        )
        log_situations(proxy, watch if leads else None, transitions, faults)
        probe = AddressProbe(proxy._services)
        log_each_second(proxy, probe)
        link.start()
        link.tell(Kind.READY)
        await worker.stopping.wait()
        probe.cancel()
        await proxy._drain()
        tell_figures(loop.time())  # also the last second counts
        transitions.flush()
        link.close()
    return EXIT_OK


def run_worker(parts: WorkerParts) -> int:
    """Run a worker in a process that was just forked; return its exit code."""
    forked(parts.place.index)
    # Ctrl-C and `kill -- -GROUP` reach the supervisor too, which knows what to do.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    link = parts.link
    try:
        return run_on_loop(serve(parts), parts.settings.event_loop)
    except (ConfigError, ListenError) as error:
        link.send(bytes([Kind.FAILED]) + str(error).encode())
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    except MemoryError:  # the loop itself cannot go on
        end_out_of_memory()
    finally:
        flush_log(CLOSE_S)


def fork(parts: WorkerParts, close: Callable[[], None]) -> int:
    """Start a worker; return its process id.

    Args:
        close: Called in the new process: closes what belongs to the supervisor.
    """
    flush_log(CLOSE_S)  # else both processes would write the remaining lines
    pid = os.fork()
    if pid:
        return pid
    code = EXIT_FAILED
    try:
        close()
        code = run_worker(parts)
    except BaseException as error:  # the supervisor's code must not go on here
        log.error("fault", message="a worker has failed", exc_info=error)
        flush_log(CLOSE_S)
    os._exit(code)

"""The supervisor of several workers (`--workers`): starts, watches, reloads and ends them.

It serves nothing, and has no event loop and no thread. So a worker is forked from it at any time,
and shares its memory until one of them writes to it. What to do is decided in fleet.py.
"""

import gc
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

from retter._version import VERSION
from retter.base.shared_memory import bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.config.reload import reloaded
from retter.config.settings import WORKERS_MAX, ConfigError, Settings
from retter.net import systemd
from retter.net.handover import Inheritance
from retter.process.descriptors import fit_descriptors
from retter.process.fleet import Do, Fleet, Phase, Step
from retter.process.worker import EXIT_FAILED, EXIT_OK, EXIT_USAGE, WorkerParts, fork
from retter.process.worker_link import Kind, Message, pair, received, send
from retter.process.worker_settings import share_of
from retter.process.worker_sockets import WorkerSockets
from retter.telemetry.log import configure as configure_log
from retter.telemetry.log import get_logger

# How often the workers are looked at.
TICK_S: Final = 0.5

# A second signal ends everything at once only if it comes later than this (signals.py).
SAME_SIGNAL_S: Final = 1.0

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)

log = get_logger()


class Supervisor:
    """The supervisor of one RETTER."""

    def __init__(self, settings: Settings, workers: int, reread: Callable[[], Settings]) -> None:
        self._settings = settings
        self._workers = workers
        self._reread = reread
        self._inheritance = Inheritance()
        self._sockets = WorkerSockets(settings, workers, self._inheritance)
        self._memory = mmap.mmap(-1, bytes_for(workers))
        self._shared = divided(memoryview(self._memory), workers)
        self._fleet = Fleet(workers)
        self._pids: dict[int, int] = {}  # worker by process
        self._links: list[socket.socket | None] = [None] * workers
        self._poll = select.poll()
        self._wake, its_wake = socket.socketpair()
        self._its_wake = its_wake
        self._stop_asked_at: float | None = None
        self._exit_code = EXIT_OK
        self._told_serving = False

    # -- life

    def run(self) -> int:
        """Run until all workers have ended; return the exit code."""
        self._take_signals()
        while not self._fleet.ended:
            now = time.monotonic()
            self._do(self._fleet.tick(now, self._beats()))
            self._poll_once(TICK_S)
        self._sockets.close()
        log.info("stopped", drained=self._exit_code == EXIT_OK)
        return self._exit_code

    def _take_signals(self) -> None:
        for end in (self._wake, self._its_wake):
            end.setblocking(False)
        self._poll.register(self._wake, select.POLLIN)
        signal.set_wakeup_fd(self._its_wake.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            # A handler of Python's: without one, nothing is written to the socket.
            signal.signal(number, _ignore)

    def _beats(self) -> list[float]:
        return [self._shared.last_beat(self._place(index)) for index in range(self._workers)]

    def _place(self, index: int) -> int:
        return index

    def _poll_once(self, timeout_s: float) -> None:
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            if descriptor == self._wake.fileno():
                for number in set(self._wake.recv(4096)):
                    self._on_signal(number)
            else:
                self._on_link(descriptor)

    def _on_signal(self, number: int) -> None:
        now = time.monotonic()
        if number == signal.SIGCHLD:
            self._reap(now)
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._on_stop(now)
        elif number == signal.SIGHUP:
            self._on_reload()

    def _on_stop(self, now: float) -> None:
        if self._stop_asked_at is not None:
            if now - self._stop_asked_at > SAME_SIGNAL_S:
                log.warning("stopped", drained=False)
                self._exit_code = EXIT_FAILED
                self._kill_all()
            return
        self._stop_asked_at = now
        systemd.notify("STOPPING=1", "STATUS=draining")
        log.info("draining", workers=self._fleet.serving)
        self._stop(now)

    def _stop(self, now: float) -> None:
        self._do(self._fleet.stop(now, self._settings.drain_s))
        self._sockets.close()  # each worker has its own descriptors, and closes them when it drains

    def _kill_all(self) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _on_reload(self) -> None:
        systemd.notify_reloading()
        try:
            wanted = fit_descriptors(self._reread())
            new = reloaded(self._settings, wanted)
            share_of(new.settings, self._workers, index=0)
        except ConfigError as error:
            log.error("reload-failed", error=str(error), advice="nothing has changed")
        else:
            self._settings = new.settings
            configure_log(new.settings.log_format, new.settings.log_level)
            self._fleet.reload()
            log.info("reloaded", changed=new.changed)
            if new.restart:
                log.warning("needs-restart", settings=new.restart)
        systemd.notify("READY=1")

    # -- workers

    def _do(self, steps: list[Step]) -> None:
        for step in steps:
            if step.do is Do.START:
                self._start(step.index)
            elif step.do is Do.KILL:
                log.error("worker-killed", worker=step.index, error=step.why)
                for pid in [pid for pid, index in self._pids.items() if index == step.index]:
                    os.kill(pid, signal.SIGKILL)
            elif step.do is Do.GIVE_UP:
                self._give_up(f"worker {step.index}: {step.why}", EXIT_FAILED)
            else:
                self._tell(step.index, Kind.RELOAD if step.do is Do.RELOAD else Kind.DRAIN)

    def _give_up(self, why: str, code: int) -> None:
        log.error("cannot-start", error=why)
        self._exit_code = code
        self._stop(time.monotonic())

    def _tell(self, index: int, kind: Kind, text: str = "") -> None:
        link = self._links[index]
        if link is not None:
            send(link, Message(kind, text))

    def _start(self, index: int) -> None:
        ours, its = pair()
        with its:
            place = WorkerPlace(index, self._workers, self._place(index), self._shared.judgement)
            parts = WorkerParts(
                settings=self._settings,
                reread=self._reread,
                place=place,
                shared=self._shared,
                sockets=self._sockets.of(index),
                link=its,
            )
            pid = fork(parts, lambda: self._close_in_worker(ours, index))
        self._links[index] = ours
        self._poll.register(ours, select.POLLIN)
        self._pids[pid] = index
        self._fleet.started(index, time.monotonic())

    def _close_in_worker(self, ours: socket.socket, index: int) -> None:
        """Close what is the supervisor's alone. Else its end would not end the other workers."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        kept = self._sockets.of(index)
        for link in (*self._links, ours, self._wake, self._its_wake):
            if link is not None:
                link.close()
        for one in self._sockets.all():
            if one not in kept:
                one.close()

    def _on_link(self, descriptor: int) -> None:
        index = next(
            number
            for number, link in enumerate(self._links)
            if link is not None and link.fileno() == descriptor
        )
        link = self._links[index]
        assert link is not None
        messages = received(link)
        if messages is None:
            self._close_link(index)  # the worker has ended; SIGCHLD says how
            return
        for message in messages:
            self._on_message(index, message)

    def _close_link(self, index: int) -> None:
        link, self._links[index] = self._links[index], None
        if link is not None:
            self._poll.unregister(link)
            link.close()

    def _on_message(self, index: int, message: Message) -> None:
        now = time.monotonic()
        if message.kind is Kind.READY:
            self._fleet.ready(index, now)
            self._on_ready(index)
        elif message.kind is Kind.FAILED:
            if not self._fleet.has_served and not self._fleet.stopping:
                self._give_up(message.text, EXIT_USAGE)
            else:
                log.error("worker-failed", worker=index, error=message.text)
        elif message.kind is Kind.NOT_RELOADED:
            self._fleet.reloaded(index)
            log.error("reload-failed", worker=index, error=message.text)
        elif message.kind is Kind.RELOADED:
            self._fleet.reloaded(index)
        elif message.kind is Kind.DRAINING:
            self._fleet.drains(index, now)

    def _on_ready(self, index: int) -> None:
        if self._told_serving:
            log.info("worker-serves", worker=index)
        elif self._fleet.has_served:
            self._told_serving = True
            if rest := self._inheritance.close_rest():
                advice = "no --listen address matches them"
                log.warning("unused-sockets", listen=rest, advice=advice)
            self._log_serving()
            self._inheritance.serving()
            systemd.notify("READY=1", "STATUS=serving")

    def _log_serving(self) -> None:
        more: dict[str, Any] = {"open_to": "every interface"} if self._sockets.everywhere else {}
        log.info(
            "serving",
            listen=self._sockets.addresses,
            upstream=self._settings.upstream,
            version=VERSION,
            pid=os.getpid(),
            admin=self._sockets.admin_address or "off",
            workers=self._workers,
            **more,
        )

    def _reap(self, now: float) -> None:
        while self._pids:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            index = self._pids.pop(pid, None)
            if index is not None:
                self._on_exit(index, os.waitstatus_to_exitcode(status), now)

    def _on_exit(self, index: int, code: int, now: float) -> None:
        link = self._links[index]
        if link is not None:
            for message in received(link) or ():  # its last words
                self._on_message(index, message)
            self._close_link(index)
        was = self._fleet.phase(index)
        start_at = self._fleet.exited(index, now)
        if not self._fleet.stopping and was is not Phase.DRAINING:
            log.error(
                "worker-ended",
                worker=index,
                **({"signal": -code} if code < 0 else {"exit_code": code}),
                again_s=round(max(0.0, start_at - now), 1),
            )


def _ignore(*_: object) -> None:
    """The signal's number is read from the wake-up socket."""


def worker_count(wanted: int) -> int:
    """Return the number of workers; 0 (`auto`) is one for each CPU that this process may use."""
    return wanted or min(WORKERS_MAX, len(os.sched_getaffinity(0)))


def share_imports(event_loop: str) -> None:
    """Import what each worker needs: then all of them have it in the same memory.

    The garbage collector would write to every object, and so copy it for each worker. It leaves
    alone what was made until now.
    """
    if event_loop != "asyncio":
        with suppress(ImportError):  # the worker says what is missing
            import_module("uvloop")
    gc.collect()
    gc.freeze()


def supervise(settings: Settings, reread: Callable[[], Settings]) -> int:
    """Run workers until a signal ends them; return the exit code.

    Raises:
        ConfigError: A setting does not go with several workers.
        ListenError: An address cannot be listened on.
    """
    if sys.platform != "linux":
        raise ConfigError("workers: several need Linux")
    workers = worker_count(settings.workers)
    share_of(settings, workers, index=0)
    share_imports(settings.event_loop)
    return Supervisor(settings, workers, reread).run()

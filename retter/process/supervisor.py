"""The supervisor of several workers (`--workers`): starts, watches, reloads and ends them.

It serves nothing, and has no event loop and no thread. So a worker is forked from it at any time,
and shares its memory until one of them writes to it. What to do is decided in fleet.py.

On SIGUSR2 it starts its successor, which inherits the sockets, the shared memory and the lock of
the store. When the workers of the successor serve, those of this process drain. Until then both use
the store, and each worker reads what any other one has removed from it.
"""

import gc
import mmap
import os
import pickle
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from math import inf
from struct import Struct
from typing import Any, Final
from zlib import crc32

from retter._version import VERSION
from retter.base.shared_memory import LAYOUT, SharedMemory, bytes_for, divided, places_of
from retter.base.worker_place import WorkerPlace
from retter.config.reload import reloaded
from retter.config.settings import WORKERS_MAX, ConfigError, Settings
from retter.judgement.memory import Memory
from retter.net import systemd
from retter.net.handover import Inheritance, Successor
from retter.process import early_signals
from retter.process.fleet import Do, Fleet, Step, WorkerPhase
from retter.process.store_place import StorePlace, place_of
from retter.process.store_rules import may_go_on, rules_to_hand_over
from retter.process.worker import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    HANDED_OVER,
    WorkerParts,
    fork,
)
from retter.process.worker_link import Kind, Message, pair, received, send
from retter.process.worker_settings import share_of
from retter.process.worker_sockets import WorkerSockets
from retter.proxy.secrets import Secrets, unpacked_secrets
from retter.telemetry.build import is_compiled
from retter.telemetry.log import configure as configure_log
from retter.telemetry.log import format_in_use as log_format
from retter.telemetry.log import get_logger

# The interval between two looks at the workers.
TICK_S: Final = 0.5

# If two looks are further apart, this process has not run, and neither have the workers: a
# container was paused, or a machine was moved to another host.
PAUSED_S: Final = 2.0

# Time for a successor to serve (signals.py).
SUCCESSOR_S: Final = 60.0

# A second signal ends everything at once only if it comes later than this (signals.py).
SAME_SIGNAL_S: Final = 1.0

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)

# Signals that a process gets when it reads a missing page of a file (SIGBUS), or an invalid address
# because of wrong numbers in the file (SIGSEGV).
_BROKEN: Final = (signal.SIGBUS, signal.SIGSEGV)

_STORE_BROKEN: Final = "a worker died while it read the database"
_STORE_BROKEN_ADVICE: Final = "restart RETTER; it then makes a new one"

# Of the settings that workers read: length and checksum.
_SETTINGS_HEAD: Final = Struct("<II")

_MESSAGES: Final = {
    Do.RELOAD: Kind.RELOAD,
    Do.CLOSE_STORE: Kind.CLOSE_STORE,
    Do.OPEN_STORE: Kind.OPEN_STORE,
}

log = get_logger()


class Supervisor:
    """The supervisor of one RETTER."""

    def __init__(self, settings: Settings, workers: int, reread: Callable[[], Settings]) -> None:
        self._settings = settings
        self._workers = workers
        self._reread = reread
        self._inheritance = Inheritance()
        self._generation = self._generation_after(self._inheritance)
        self._sockets = WorkerSockets(settings, workers, self._inheritance)
        self._memory_fd = self._inheritance.memory_fd
        self._settings_fd = os.memfd_create("retter-settings", os.MFD_CLOEXEC)
        self._secrets = Secrets()
        self._shared = self._map_memory()
        self._judgement = Memory(self._shared.judgement, places_of(workers))
        self._store_broken = False
        self._shares_store = False  # with the workers of the process before
        self._store_set_aside = ""  # why, if a broken one was
        self._left_store = ""  # the folder in memory of the process before, which is not used here
        self._store, self._store_lock_fd = self._open_store()
        self._fleet = Fleet(workers)
        self._pids: dict[int, int] = {}  # worker by process
        self._links: list[socket.socket | None] = [None] * workers
        self._poll = select.poll()
        self._wake, its_wake = socket.socketpair()
        self._its_wake = its_wake
        self._looked_at = inf  # the last time at the workers
        self._stop_asked_at: float | None = None
        self._exit_code = EXIT_OK
        self._told_serving = False
        self._handed_over = False
        self._successor: Successor | None = None
        self._successor_by = inf  # it is killed then, if it does not serve
        self._rules_given: dict[str, Any] = {}  # by which our workers store, as it knows
        self._take_over_asked = False  # before ours serve, or while the process before still drains
        self._exit_of: dict[int, int] = {}  # of other processes that have ended, by id
        self._watchdog = systemd.watchdog_wanted()
        self._told_alive_at = -inf

    def _generation_after(self, inheritance: Inheritance) -> int:
        """Return 0 or 1: which half of the shared memory the workers of this process have.

        Raises:
            ConfigError: The previous process has another number of workers, or, as another version,
                divides their memory in another way.
        """
        self._predecessor = 0
        if not inheritance.takes_over:
            return 0
        before = inheritance.workers
        count = 1 if before is None else before.get("count", 0)
        if before is None or count != self._workers:
            raise ConfigError(
                f"workers: from {count} to {self._workers} needs a restart; SIGUSR2 cannot do that"
            )
        fd = inheritance.memory_fd
        size = os.fstat(fd).st_size if fd >= 0 else 0
        if before.get("layout") != LAYOUT or size != bytes_for(self._workers):
            raise ConfigError("workers: this version needs a restart; SIGUSR2 cannot do that")
        self._predecessor = int(before.get("pid", 0))
        return 1 - int(before.get("generation", 0))

    def _map_memory(self) -> SharedMemory:
        """Return the memory of all workers; the previous process may have the other half."""
        size, inherited = bytes_for(self._workers), self._memory_fd >= 0
        if not inherited:
            self._memory_fd = os.memfd_create("retter-workers", os.MFD_CLOEXEC)
            os.ftruncate(self._memory_fd, size)
        shared = divided(memoryview(mmap.mmap(self._memory_fd, size)), self._workers)
        if inherited:
            self._secrets = unpacked_secrets(bytes(shared.secrets).rstrip(b"\0"))
        else:
            packed = self._secrets.packed()
            shared.secrets[: len(packed)] = packed
        return shared

    def _open_store(self) -> tuple[StorePlace, int]:
        """Return the folder of the shared store, and its lock; -1 if nothing is stored.

        Raises:
            ConfigError: It cannot be used.
        """
        before, settings = self._inheritance.workers or {}, self._settings
        temporary, lock_fd = str(before.get("temporary_store", "")), self._inheritance.store_fd
        store = place_of(settings, temporary)
        if temporary != store.path:
            self._left_store = temporary
        if lock_fd >= 0 and not (
            before.get("store") == store.path and self._is_lock_of(lock_fd, store.path)
        ):
            os.close(lock_fd)  # another RETTER may use that folder when the process before ends
            lock_fd = -1
        if not store.path:
            return store, -1
        if lock_fd >= 0:
            self._shares_store = True
            if before.get("store_broken"):  # they have left it: reading it would kill these, too
                self._store_broken = True
                log.error("store-broken", error=_STORE_BROKEN, advice=_STORE_BROKEN_ADVICE)
            return store, lock_fd  # the other supervisor's workers use it too
        from retter.disk.shared_opening import prepare
        from retter.process.disk_log import log_damaged_drops

        wanted = replace(settings, store=store.path, store_disk_bytes=store.bytes_max)
        try:
            return store, prepare(
                wanted, self._workers, self._on_set_aside, partial(log_damaged_drops, store.path)
            )
        except ConfigError:
            store.remove()
            raise

    def _on_set_aside(self, why: str) -> None:
        self._store_set_aside = why

    @staticmethod
    def _is_lock_of(lock_fd: int, path: str) -> bool:
        from retter.disk.folder import is_lock_of

        return is_lock_of(lock_fd, path)

    # -- life

    def run(self) -> int:
        """Run until all workers have ended; return the exit code."""
        self._take_signals()
        try:
            while not self._fleet.ended:
                self._tick(time.monotonic())
                self._poll_once(TICK_S)
        finally:
            self._close()
        if self._exit_code == EXIT_OK:
            log.info("stopped", drained=True)
        return self._exit_code

    def _close(self) -> None:
        """Close everything. Workers that run still end with their links."""
        signal.set_wakeup_fd(-1)
        self._sockets.close(handed_over=self._handed_over)
        if not self._handed_over and not self._store_is_lent:
            self._store.remove()
        if self._told_serving:
            self._remove_left_store()
        for link in (*self._links, self._wake, self._its_wake):
            if link is not None:
                link.close()
        if self._settings_fd >= 0:
            os.close(self._settings_fd)
            self._settings_fd = -1

    def _remove_left_store(self) -> None:
        """Remove the folder in memory that only the previous process has used."""
        StorePlace(self._left_store, 0, temporary=bool(self._left_store)).remove()
        self._left_store = ""

    def _tick(self, now: float) -> None:
        paused_s, self._looked_at = now - self._looked_at, now
        if paused_s >= PAUSED_S:
            self._fleet.woke(now, paused_s)
        self._do(self._fleet.tick(now, self._beats()))
        if self._left_store and self._told_serving and not self._is_shared_with_predecessor:
            self._remove_left_store()
        if (
            self._take_over_asked
            and self._fleet.has_served
            and not self._is_shared_with_predecessor
        ):
            self._take_over_asked = False
            self._on_take_over(now)
        if self._successor is not None and now >= self._successor_by:
            advice = "the successor is stopped"
            log.warning("takeover-late", successor=self._successor.pid, advice=advice)
            self._successor_by = inf
            self._successor.kill()  # its end makes ready_fd readable
        if self._watchdog and now - self._told_alive_at >= 1:
            self._told_alive_at = now
            systemd.notify("WATCHDOG=1")

    def _take_signals(self) -> None:
        for end in (self._wake, self._its_wake):
            end.setblocking(False)
        self._poll.register(self._wake, select.POLLIN)
        signal.set_wakeup_fd(self._its_wake.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            # A handler of Python's: without one, nothing is written to the socket.
            signal.signal(number, _ignore)
        early_signals.release()

    def _beats(self) -> list[float]:
        return [self._shared.last_beat(self._place(index)) for index in range(self._workers)]

    def _place(self, index: int) -> int:
        return self._generation * self._workers + index

    def _poll_once(self, timeout_s: float) -> None:
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            if descriptor == self._wake.fileno():
                for number in set(self._wake.recv(4096)):
                    self._on_signal(number)
            elif self._successor is not None and descriptor == self._successor.ready_fd:
                self._on_successor(self._successor)
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
        elif number == signal.SIGUSR2:
            self._on_take_over(now)

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
        if self._successor is not None:
            self._forget_successor().end()
        self._stop(now)

    def _stop(self, now: float, *, handed_over: bool = False) -> None:
        for step in self._fleet.stop(now, self._settings.drain_s):
            self._tell(step.index, Kind.DRAIN, HANDED_OVER if handed_over else "")
        # Each worker has its own descriptors. It closes them when it has read what has come.
        self._sockets.close(handed_over=handed_over)

    def _kill_all(self) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _on_reload(self) -> None:
        systemd.notify_reloading()
        try:
            new = reloaded(self._settings, self._reread())
            share_of(new.settings, self._workers, index=0)
        except ConfigError as error:
            log.error("reload-failed", error=str(error), advice="nothing has changed")
        else:
            self._settings = new.settings
            self._hand_out(new.settings)
            configure_log(new.settings.log_format, new.settings.log_level)
            self._do(self._fleet.reload(time.monotonic()))
            log.info("reloaded", changed=new.changed)
            if new.restart:
                log.warning("needs-restart", settings=new.restart)
        systemd.notify("READY=1")

    def _hand_out(self, settings: Settings) -> None:
        """Write the settings where all workers read them: a file may be changed meanwhile."""
        data = pickle.dumps(settings)
        os.pwrite(self._settings_fd, _SETTINGS_HEAD.pack(len(data), crc32(data)) + data, 0)

    def _reread_settings(self) -> Settings:
        """Read, in a worker, the settings that the supervisor has written.

        Raises:
            ConfigError: The supervisor writes new settings just now; it sends another reload soon.
        """
        size, checksum = _SETTINGS_HEAD.unpack(os.pread(self._settings_fd, _SETTINGS_HEAD.size, 0))
        data = os.pread(self._settings_fd, size, _SETTINGS_HEAD.size)
        if crc32(data) != checksum:
            raise ConfigError("others are read just now")
        settings: Settings = pickle.loads(data)
        return settings

    # -- another supervisor takes over

    @property
    def _store_is_lent(self) -> bool:
        """Whether the folder is that of the previous process, which may still go on using it."""
        lent = (self._inheritance.workers or {}).get("temporary_store")
        return self._store.path == lent and not self._told_serving

    @property
    def _is_shared_with_predecessor(self) -> bool:
        """Whether the previous process still runs: its workers have the other half of the memory.

        It has started this process. When it ends, this process gets another parent.
        """
        return bool(self._predecessor) and os.getppid() == self._predecessor

    def _on_take_over(self, now: float) -> None:
        if self._successor is not None or self._fleet.stopping:
            return
        if not self._fleet.has_served:
            self._take_over_asked = True
            return
        if self._is_shared_with_predecessor:  # a successor's workers would have the same places
            self._take_over_asked = True
            log.info("takeover-waits", process=self._predecessor, advice="it still drains")
            return
        workers = {
            "pid": os.getpid(),
            "count": self._workers,
            "generation": self._generation,
            "layout": LAYOUT,
            "store": self._store.path,
            "temporary_store": self._store.path if self._store.temporary else "",
            "store_broken": self._store_broken,
            "store_rules": (rules := rules_to_hand_over(self._settings, self._secrets)),
        }
        try:
            successor = self._inheritance.start_successor(
                self._sockets.all(),
                log_format(),
                self._store_lock_fd,
                memory_fd=self._memory_fd,
                workers=workers,
            )
        except OSError as error:
            log.error("takeover-failed", error=error.strerror, advice="nothing has changed")
            return
        log.info("takeover", successor=successor.pid)
        self._tell_all(Kind.CLOSE_STORE)  # the successor may store by other rules
        self._successor, self._successor_by = successor, now + SUCCESSOR_S
        self._rules_given = rules
        self._poll.register(successor.ready_fd, select.POLLIN)

    def _forget_successor(self) -> Successor:
        assert self._successor is not None
        successor, self._successor, self._successor_by = self._successor, None, inf
        self._poll.unregister(successor.ready_fd)
        return successor

    def _on_successor(self, successor: Successor) -> None:
        self._forget_successor()
        if not successor.serves():
            code = self._exit_of.pop(successor.pid, None)
            log.error(
                "takeover-failed",
                exit_code=successor.exit_code() if code is None else code,
                advice="nothing has changed",
            )
            if not self._fleet.reloading:
                self._tell_all(Kind.OPEN_STORE)
            return
        rules = rules_to_hand_over(self._settings, self._secrets)
        if successor.stores_alike and rules == self._rules_given and not self._fleet.reloading:
            self._tell_all(Kind.OPEN_STORE)
        systemd.notify(f"MAINPID={successor.pid}")
        log.info("draining", workers=self._fleet.serving)
        self._stop_asked_at = now = time.monotonic()
        self._handed_over = True
        self._stop(now, handed_over=True)

    # -- workers

    def _do(self, steps: list[Step]) -> None:
        for step in steps:
            if step.do is Do.START:
                self._start(step.index)
            elif step.do is Do.KILL:
                log.error("worker-killed", worker=step.index, error=step.why)
                for pid in [pid for pid, index in self._pids.items() if index == step.index]:
                    os.kill(pid, signal.SIGKILL)
            elif step.do is Do.STOP_LISTENING:
                if self._successor is None:  # its workers have the same sockets
                    advice = "the others get its clients until it serves again"
                    log.warning("worker-away", worker=step.index, advice=advice)
                    self._sockets.stop_listening(step.index)
                    self._fleet.listens_no_more(step.index)
            elif step.do is Do.GIVE_UP:
                self._give_up(f"worker {step.index}: {step.why}", EXIT_FAILED)
            elif step.do is not Do.OPEN_STORE or self._successor is None:
                self._tell(step.index, _MESSAGES[step.do])

    def _give_up(self, why: str, code: int) -> None:
        log.error("cannot-start", error=why)
        self._exit_code = code
        self._stop(time.monotonic())

    def _tell_all(self, kind: Kind) -> None:
        for index in range(self._workers):
            self._tell(index, kind)

    def _tell(self, index: int, kind: Kind, text: str = "") -> None:
        link = self._links[index]
        if link is not None:
            send(link, Message(kind, text))

    def _start(self, index: int) -> None:
        ours, its = pair()
        with its:
            place = WorkerPlace(
                index,
                self._workers,
                self._place(index),
                self._shared,
                self._store_lock_fd,
                self._memory_fd,
                self._shares_store,
                self._store_set_aside,
            )
            parts = WorkerParts(
                settings=self._settings,
                reread=self._reread_settings,
                place=place,
                sockets=self._sockets.of(index),
                link=its,
                secrets=self._secrets,
                store=StorePlace("", 0) if self._store_broken else self._store,
            )
            self._fleet.started(index, time.monotonic())
            try:
                pid = fork(parts, lambda: self._close_in_worker(ours, index))
            except OSError as error:
                ours.close()
                self._fleet.exited(index, time.monotonic())
                log.error("worker-failed", worker=index, error=error.strerror)
                return
        self._links[index] = ours
        self._poll.register(ours, select.POLLIN)
        self._pids[pid] = index
        if self._successor is not None or self._fleet.reloading:
            self._tell(index, Kind.CLOSE_STORE)  # as all others were told

    def _close_in_worker(self, ours: socket.socket, index: int) -> None:
        """Close the supervisor's own descriptors, so that the workers notice when it ends."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):  # the worker ignores the others soon
            signal.signal(number, signal.SIG_DFL)
        kept = self._sockets.of(index)
        self._inheritance.close_ready()
        if self._successor is not None:
            os.close(self._successor.ready_fd)
        for link in (*self._links, ours, self._wake, self._its_wake):
            if link is not None:
                link.close()
        for one in self._sockets.all():
            if one not in kept:
                one.close()

    def _on_link(self, descriptor: int) -> None:
        for index, link in enumerate(self._links):
            if link is None or link.fileno() != descriptor:
                continue  # also of a worker whose end was noticed in this very round
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
        elif message.kind is Kind.CLOSED:
            self._fleet.closed(index)
        elif message.kind is Kind.TAKE_OVER:
            self._on_take_over(now)
        elif message.kind is Kind.DRAINING:
            self._fleet.drains(index, now, self._settings.drain_s)

    def _on_ready(self, index: int) -> None:
        if self._told_serving:
            log.info("worker-serves", worker=index)
        elif self._fleet.has_served:
            self._told_serving = True
            if rest := self._inheritance.close_rest():
                advice = "no --listen address matches them"
                log.warning("unused-sockets", listen=rest, advice=advice)
            self._log_serving()
            self._claim_store()
            self._inheritance.serving(stores_alike=self._stores_as_before())
            systemd.notify("READY=1", f"STATUS={self._workers} workers serve")

    def _claim_store(self) -> None:
        """Write who uses the folder, for `retter store`: the process before has lent it."""
        if self._store_lock_fd >= 0:
            from retter.disk.folder import claim

            with suppress(OSError):
                claim(self._store_lock_fd)

    def _stores_as_before(self) -> bool:
        """Return whether our workers may show what those of the process before store."""
        before = self._inheritance.workers
        if before is None or before.get("store") != self._store.path or self._store_broken:
            return False
        return may_go_on(before.get("store_rules", {}), self._settings, self._secrets)

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
            **({"compiled": True} if is_compiled() else {}),
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
            index, code = self._pids.pop(pid, None), os.waitstatus_to_exitcode(status)
            if index is not None:
                self._on_exit(index, code, now)
            else:
                self._exit_of[pid] = code

    def _leave_store(self) -> None:
        """Continue with the memory near each worker: reading the store has killed one.

        A page that cannot be read raises a signal in place of an exception. All others would die in
        the same way. The next start sets the database aside (disk/folder.py).
        """
        why = _STORE_BROKEN
        log.error("store-broken", error=why, advice=_STORE_BROKEN_ADVICE)
        with suppress(OSError), open(os.path.join(self._store.path, "broken"), "w") as file:
            file.write(why)
        self._store_broken = True
        for index in range(self._workers):
            self._tell(index, Kind.LEAVE_STORE, why)

    def _on_exit(self, index: int, code: int, now: float) -> None:
        link = self._links[index]
        if link is not None:
            for message in received(link) or ():  # its last words
                self._on_message(index, message)
            self._close_link(index)
        self._judgement.vacate(self._place(index))  # nothing of it is in flight any more
        if -code in _BROKEN and self._store.path:
            self._leave_store()
        was = self._fleet.phase(index)
        start_at = self._fleet.exited(index, now)
        if not self._fleet.stopping and was is not WorkerPhase.DRAINING:
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


def share_imports(settings: Settings) -> None:
    """Import what each worker needs: then all of them have it in the same memory.

    The garbage collector would write to every object, and so copy it for each worker. So it is
    told to ignore all objects that exist now.
    """
    wanted = ["uvloop"] if settings.event_loop != "asyncio" else []
    if settings.admin not in ("off", ""):
        wanted += ["retter.admin.state", "retter.admin.metrics"]
    if settings.shared:
        wanted += ["redis", "retter.far.shelf", "retter.far.siblings"]
    for name in wanted:
        with suppress(ImportError):  # the worker says what is missing
            import_module(name)
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
    if settings.shared:
        from retter.proxy.sharing import far_keys

        far_keys(settings)  # otherwise each worker would report the mistake
    workers = worker_count(settings.workers)
    share_of(settings, workers, index=0)
    share_imports(settings)
    return Supervisor(settings, workers, reread).run()

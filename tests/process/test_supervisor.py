"""The supervisor, with workers that are no processes: the test speaks for them."""

import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from retter.base.shared_memory import LAYOUT
from retter.config.settings import ConfigError, Settings
from retter.disk.inspection import used_by
from retter.net import systemd
from retter.net.handover import Inheritance, Successor
from retter.net.sockets import ListenError, listens
from retter.process import supervisor as module
from retter.process.fleet import DEATHS_AT_START_MAX, QUEUE_S, SILENT_S, WorkerPhase
from retter.process.supervisor import Supervisor, supervise, worker_count
from retter.process.worker import EXIT_FAILED, EXIT_OK, EXIT_USAGE, HANDED_OVER, WorkerParts
from retter.process.worker_link import Kind, Message, received, send

SETTINGS = Settings(
    upstream="127.0.0.1:1",
    listen=("127.0.0.1:0",),
    admin="127.0.0.1:0",
    workers=2,
    store_memory_bytes=0,
    store_object_bytes_max=0,
)


@dataclass
class FakeWorker:
    """The parts that a worker got, and its end of the link."""

    parts: WorkerParts
    link: socket.socket
    pid: int

    def say(self, kind: Kind, text: str = "") -> None:
        send(self.link, Message(kind, text))

    def heard(self) -> list[Message]:
        return received(self.link) or []


class Stage:
    """A supervisor, its workers and its log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.workers: list[FakeWorker] = []
        self.ended: list[tuple[int, int]] = []  # process, status
        self.killed: list[int] = []
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.told: list[str] = []  # systemd
        self.settings = SETTINGS
        self.opened: list[Supervisor] = []
        monkeypatch.setattr(module, "fork", self._fork)
        monkeypatch.setattr(module, "log", self)
        monkeypatch.setattr(systemd, "notify", lambda *lines: self.told.extend(lines))
        monkeypatch.setattr(os, "kill", lambda pid, _: self.killed.append(pid))
        monkeypatch.setattr(os, "waitpid", self._waitpid)
        monkeypatch.setattr(module, "configure_log", lambda *_: None)

    def __getattr__(self, level: str) -> Any:
        assert level in ("info", "warning", "error")
        return lambda event, **rest: self.log.append((event, rest))

    def _fork(self, parts: WorkerParts, close: Any) -> int:
        pid = 1_000_000 + len(self.workers)
        parts.place.shared.beat(parts.place.place, inf)  # it is alive
        self.workers.append(FakeWorker(parts, parts.link.dup(), pid))
        return pid

    def _waitpid(self, pid: int, _: int) -> tuple[int, int]:
        for number, (ended, status) in enumerate(self.ended):
            if pid in (-1, ended):
                del self.ended[number]
                return ended, status
        return 0, 0

    def open(self, **changes: Any) -> Supervisor:
        settings = replace(self.settings, **changes)
        found = Supervisor(settings, settings.workers, lambda: self.settings)
        self.opened.append(found)
        return found

    def serving(self, **changes: Any) -> Supervisor:
        """Return a supervisor whose workers serve."""
        supervisor = self.open(**changes)
        step(supervisor)
        for worker in self.workers:
            worker.say(Kind.READY)
        step(supervisor)
        return supervisor

    def end(self, supervisor: Supervisor, worker: FakeWorker, status: int = 0) -> None:
        """A worker process ends with this status."""
        worker.link.close()
        self.ended.append((worker.pid, status))
        supervisor._on_signal(signal.SIGCHLD)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [rest for event, rest in self.log if event == name]

    def close(self) -> None:
        for worker in self.workers:
            worker.link.close()
        for one in self.opened:
            one._close()
            if one._inheritance.memory_fd < 0:
                os.close(one._memory_fd)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    before = {number: signal.getsignal(number) for number in module._SIGNALS}
    found = Stage(monkeypatch)
    yield found
    found.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def step(supervisor: Supervisor) -> None:
    """Do what is due, and read what has been said."""
    supervisor._tick(time.monotonic())
    supervisor._poll_once(0.0)


def test_workers_get_sockets_of_their_own_for_one_address(stage: Stage) -> None:
    stage.serving()
    first, second = [worker.parts for worker in stage.workers]
    assert [parts.place.index for parts in (first, second)] == [0, 1]
    names = [parts.sockets[0].getsockname() for parts in (first, second)]
    assert names[0] == names[1] and first.sockets[0] is not second.sockets[0]
    assert len(first.sockets) == 2 and len(second.sockets) == 1, "the first has the admin listener"
    (said,) = stage.events("serving")
    assert said["listen"] == [f"http://127.0.0.1:{names[0][1]}"] and said["workers"] == 2
    assert "READY=1" in stage.told


def test_it_does_not_serve_before_all_workers_do(stage: Stage) -> None:
    supervisor = stage.open()
    step(supervisor)
    stage.workers[0].say(Kind.READY)
    step(supervisor)
    assert not stage.events("serving") and not stage.told


def test_a_worker_that_dies_is_replaced_and_both_are_told(stage: Stage) -> None:
    supervisor = stage.serving()
    stage.end(supervisor, stage.workers[1], signal.SIGKILL)
    assert stage.events("worker-ended") == [{"worker": 1, "signal": 9, "again_s": 0.0}]
    step(supervisor)
    assert [worker.parts.place.index for worker in stage.workers] == [0, 1, 1]
    assert stage.workers[1].parts.sockets == stage.workers[2].parts.sockets
    stage.workers[2].say(Kind.READY)
    step(supervisor)
    assert stage.events("worker-serves") == [{"worker": 1}]


def test_a_worker_that_was_asked_to_end_is_no_error(stage: Stage) -> None:
    supervisor = stage.serving()
    stage.workers[0].say(Kind.DRAINING)
    step(supervisor)
    stage.end(supervisor, stage.workers[0])
    assert not stage.events("worker-ended")


def test_others_get_the_clients_of_a_worker_that_drains_for_long(stage: Stage) -> None:
    supervisor = stage.serving()
    stage.workers[1].say(Kind.DRAINING)
    step(supervisor)
    assert listens(stage.workers[1].parts.sockets[0]) and not stage.events("worker-away")
    supervisor._tick(time.monotonic() + QUEUE_S)
    assert listens(stage.workers[0].parts.sockets[0])
    assert not listens(stage.workers[1].parts.sockets[0])
    supervisor._tick(time.monotonic() + QUEUE_S)
    assert [one["worker"] for one in stage.events("worker-away")] == [1], "once"


def test_workers_that_were_paused_with_the_supervisor_are_not_killed(stage: Stage) -> None:
    supervisor, now = stage.serving(), time.monotonic()
    for worker in stage.workers:
        worker.parts.place.shared.beat(worker.parts.place.place, now)
    supervisor._tick(now)
    supervisor._tick(now + 10 * SILENT_S)
    assert not stage.killed
    ticks = int(SILENT_S / module.TICK_S)
    for tick in range(1, ticks + 1):
        supervisor._tick(now + 10 * SILENT_S + tick * module.TICK_S)
    assert len(stage.killed) == 2, "they are silent although it runs"


def test_during_a_takeover_all_sockets_listen(stage: Stage) -> None:
    """The successor's workers have the same ones."""
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    stage.workers[1].say(Kind.DRAINING)
    step(supervisor)
    supervisor._tick(time.monotonic() + QUEUE_S)
    assert listens(stage.workers[1].parts.sockets[0]) and not stage.events("worker-away")
    os.close(inheritance.its_ready)


def test_a_worker_without_a_process_is_tried_again(stage: Stage) -> None:
    def no_process(*_: Any) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    stage.patch.setattr(module, "fork", no_process)
    supervisor = stage.open()
    step(supervisor)
    assert [one["worker"] for one in stage.events("worker-failed")] == [0, 1]
    stage.patch.setattr(module, "fork", stage._fork)
    step(supervisor)
    assert len(stage.workers) == 2


def test_deaths_at_the_start_end_the_whole_with_one_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retter.process.backoff.DELAYS_S", (0.0,))
    supervisor = stage.open(workers=1)
    for _ in range(DEATHS_AT_START_MAX):
        step(supervisor)
        stage.end(supervisor, stage.workers[-1], 1 << 8)
    step(supervisor)
    assert "ended 5 times" in stage.events("cannot-start")[0]["error"]
    assert supervisor.run() == EXIT_FAILED


def test_what_the_operator_must_change_ends_the_start_at_once(stage: Stage) -> None:
    supervisor = stage.open()
    step(supervisor)
    stage.workers[0].say(Kind.FAILED, "tls_cert: no such file")
    step(supervisor)
    assert stage.events("cannot-start") == [{"error": "tls_cert: no such file"}]
    assert stage.workers[1].heard() == [Message(Kind.DRAIN)]
    for worker in stage.workers:
        stage.end(supervisor, worker, 2 << 8)
    assert supervisor.run() == EXIT_USAGE


def test_later_such_a_worker_is_only_told(stage: Stage) -> None:
    supervisor = stage.serving()
    stage.workers[0].say(Kind.FAILED, "access_log: no space")
    step(supervisor)
    assert stage.events("worker-failed") == [{"worker": 0, "error": "access_log: no space"}]
    assert not supervisor._fleet.stopping


def test_a_reload_is_checked_once_and_told_one_by_one(stage: Stage) -> None:
    supervisor = stage.serving()
    stage.settings = replace(SETTINGS, drain_s=3.0, workers=5)
    supervisor._on_signal(signal.SIGHUP)
    assert stage.events("reloaded")[0]["changed"] == {"--drain": "3s"}
    assert stage.events("needs-restart")[0]["settings"] == {"--workers": "5"}
    first, second = stage.workers
    assert first.heard() == second.heard() == [Message(Kind.CLOSE_STORE)]
    for worker in stage.workers:
        worker.say(Kind.CLOSED)
    step(supervisor)
    step(supervisor)
    assert first.heard() == [Message(Kind.RELOAD)] and second.heard() == []
    first.say(Kind.NOT_RELOADED, "no")
    step(supervisor)
    step(supervisor)
    assert second.heard() == [Message(Kind.RELOAD)]
    second.say(Kind.RELOADED)
    step(supervisor)
    step(supervisor)
    assert first.heard() == second.heard() == [Message(Kind.OPEN_STORE)]
    assert stage.events("reload-failed") == [{"worker": 0, "error": "no"}]


def test_all_workers_get_the_settings_that_were_checked(stage: Stage) -> None:
    """The file may be half written when the second one reloads."""
    supervisor = stage.serving()
    first, second = stage.workers
    stage.settings = replace(SETTINGS, drain_s=3.0)
    supervisor._on_signal(signal.SIGHUP)
    stage.settings = replace(SETTINGS, drain_s=4.0)
    assert [one.parts.reread().drain_s for one in (first, second)] == [3.0, 3.0]
    os.pwrite(supervisor._settings_fd, b"half", 30)
    with pytest.raises(ConfigError, match="just now"):
        first.parts.reread()


def test_the_signal_for_a_successor_may_go_to_a_worker(stage: Stage) -> None:
    supervisor, started = stage.serving(), list[float]()
    stage.patch.setattr(supervisor, "_on_take_over", started.append)
    stage.workers[1].say(Kind.TAKE_OVER)
    step(supervisor)
    assert len(started) == 1


def test_settings_that_are_wrong_reach_no_worker(stage: Stage) -> None:
    supervisor = stage.serving()

    def wrong() -> Settings:
        raise ConfigError("drain: no")

    supervisor._reread = wrong
    supervisor._on_signal(signal.SIGHUP)
    step(supervisor)
    assert stage.events("reload-failed")[0]["error"] == "drain: no"
    assert stage.workers[0].heard() == []


def test_a_stop_drains_all_and_a_second_one_kills(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = stage.serving()
    listener = stage.workers[0].parts.sockets[0]
    supervisor._on_signal(signal.SIGTERM)
    supervisor._on_signal(signal.SIGINT)  # the same wish
    assert [worker.heard() for worker in stage.workers] == [[Message(Kind.DRAIN)]] * 2
    assert listener.fileno() < 0 and not stage.killed
    monkeypatch.setattr(module, "SAME_SIGNAL_S", -1.0)
    supervisor._on_signal(signal.SIGTERM)
    assert stage.killed == [worker.pid for worker in stage.workers]
    for worker in stage.workers:
        stage.end(supervisor, worker, signal.SIGKILL)
    assert supervisor.run() == EXIT_FAILED


def test_a_drained_end_is_a_good_one(stage: Stage) -> None:
    supervisor = stage.serving()
    supervisor._on_signal(signal.SIGTERM)
    for worker in stage.workers:
        stage.end(supervisor, worker)
    assert supervisor.run() == EXIT_OK
    assert stage.events("stopped") == [{"drained": True}]


def test_a_silent_worker_is_killed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retter.process.fleet.SILENT_S", 0.0)
    supervisor = stage.serving()
    stage.killed.clear()
    stage.workers[0].parts.place.shared.beat(0, 0.0)
    supervisor._tick(time.monotonic())
    assert stage.killed == [stage.workers[0].pid]
    assert stage.events("worker-killed")[-1]["worker"] == 0


def test_the_watchdog_is_answered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    supervisor = stage.serving()
    supervisor._tick(time.monotonic())
    assert stage.told.count("WATCHDOG=1") == 1
    supervisor._tick(time.monotonic() + 1.5)
    assert stage.told.count("WATCHDOG=1") == 2


def test_a_store_that_has_killed_a_worker_is_not_used_any_more(
    stage: Stage, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    supervisor = stage.serving(
        store=str(folder), store_disk_bytes=1 << 20, store_memory_bytes=8 << 20
    )
    assert stage.workers[0].parts.store.path == str(folder)
    stage.end(supervisor, stage.workers[0], signal.SIGBUS)
    assert stage.events("store-broken")
    assert [one.kind for one in stage.workers[1].heard()] == [Kind.LEAVE_STORE]
    step(supervisor)
    assert stage.workers[2].parts.store.path == ""
    assert (folder / "broken").read_text(), "the next start sets it aside"
    os.close(supervisor._store_lock_fd)


# -- another supervisor takes over


class FakeInheritance(Inheritance):
    """Starts a successor that the test speaks for."""

    def start_successor(self, *_: Any, **given: Any) -> Successor:
        self.given = given
        ready, self.its_ready = os.pipe()
        return Successor(77, ready)


def take_over(stage: Stage, supervisor: Supervisor) -> FakeInheritance:
    supervisor._inheritance = found = FakeInheritance()
    supervisor._on_signal(signal.SIGUSR2)
    assert stage.events("takeover") == [{"successor": 77}]
    assert [worker.heard() for worker in stage.workers] == [[Message(Kind.CLOSE_STORE)]] * 2
    return found


def test_when_the_successor_serves_all_workers_drain(stage: Stage) -> None:
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    assert inheritance.given["workers"]["count"] == 2
    os.write(inheritance.its_ready, b"1")
    os.close(inheritance.its_ready)
    step(supervisor)
    assert [worker.heard() for worker in stage.workers] == [[Message(Kind.DRAIN, HANDED_OVER)]] * 2
    assert "MAINPID=77" in stage.told


def test_what_waits_is_written_if_the_successor_may_show_it(stage: Stage) -> None:
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    inheritance._ready_fd = inheritance.its_ready
    inheritance.serving(stores_alike=True)
    step(supervisor)
    drain = Message(Kind.DRAIN, HANDED_OVER)
    for worker in stage.workers:
        assert worker.heard() == [Message(Kind.OPEN_STORE), drain]


def test_what_waits_is_not_written_if_the_rules_have_changed_since(stage: Stage) -> None:
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    supervisor._settings = replace(supervisor._settings, ignore_cookies=("theme",))
    inheritance._ready_fd = inheritance.its_ready
    inheritance.serving(stores_alike=True)
    step(supervisor)
    for worker in stage.workers:
        assert worker.heard() == [Message(Kind.DRAIN, HANDED_OVER)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, b"2"),
        ({"ignore_cookies": ("theme",)}, b"2"),  # it tells fewer requests apart
        ({"vary_on": ("X-Country",)}, b"1"),
        ({"store_private": "off"}, b"1"),
        ({"store_policy": "rfc9111"}, b"1"),
    ],
)
def test_a_successor_says_whether_it_may_show_what_the_others_store(
    stage: Stage, changes: dict[str, Any], told: bytes
) -> None:
    first = stage.serving()
    given = take_over(stage, first).given
    ready, its_ready = os.pipe()
    inherited(stage, given["workers"], os.dup(given["memory_fd"]))
    second = stage.open(**changes)
    second._inheritance._ready_fd = its_ready
    step(second)
    for worker in stage.workers[2:]:
        worker.say(Kind.READY)
    step(second)
    assert os.read(ready, 1) == told
    os.close(ready)


def test_a_successor_that_ends_changes_nothing(stage: Stage) -> None:
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    stage.ended.append((77, 2 << 8))
    supervisor._on_signal(signal.SIGCHLD)
    os.close(inheritance.its_ready)
    step(supervisor)
    assert stage.events("takeover-failed")[0]["exit_code"] == 2
    assert [worker.heard() for worker in stage.workers] == [[Message(Kind.OPEN_STORE)]] * 2
    assert supervisor._fleet.phase(0) is WorkerPhase.SERVING


def test_a_successor_that_takes_too_long_is_killed(stage: Stage) -> None:
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    supervisor._tick(time.monotonic() + module.SUCCESSOR_S)
    assert stage.killed == [77] and stage.events("takeover-late")
    os.close(inheritance.its_ready)
    stage.ended.append((77, signal.SIGKILL))
    step(supervisor)
    assert stage.events("takeover-failed")[0]["exit_code"] == -signal.SIGKILL


def test_a_worker_that_starts_during_a_takeover_stores_nothing_either(stage: Stage) -> None:
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    stage.end(supervisor, stage.workers[0], 1 << 8)
    step(supervisor)
    assert stage.workers[2].heard() == [Message(Kind.CLOSE_STORE)]
    os.close(inheritance.its_ready)


def test_a_reload_does_not_open_the_store_before_the_takeover_is_over(stage: Stage) -> None:
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    supervisor._on_signal(signal.SIGHUP)
    for worker in stage.workers:
        worker.say(Kind.CLOSED)
        worker.say(Kind.RELOADED)
    for _ in range(6):
        step(supervisor)
        for worker in stage.workers:
            assert Message(Kind.OPEN_STORE) not in worker.heard()
            worker.say(Kind.RELOADED)
    assert not supervisor._fleet.reloading
    stage.ended.append((77, 2 << 8))
    supervisor._on_signal(signal.SIGCHLD)
    os.close(inheritance.its_ready)
    step(supervisor)
    assert [worker.heard() for worker in stage.workers] == [[Message(Kind.OPEN_STORE)]] * 2


def test_a_worker_does_not_keep_the_pipe_by_which_the_end_of_its_supervisor_is_seen(
    stage: Stage,
) -> None:
    supervisor = stage.serving()
    ready, its_ready = os.pipe()
    supervisor._inheritance._ready_fd = its_ready
    ours, its = socket.socketpair()
    pid = os.fork()
    if not pid:
        supervisor._close_in_worker(ours, 0)
        try:
            os.fstat(its_ready)
        except OSError:
            os._exit(0)
        os._exit(1)
    ended = os.waitid(os.P_PID, pid, os.WEXITED)
    assert ended is not None and ended.si_status == 0
    for one in (ours, its):
        one.close()
    os.close(ready)
    supervisor._inheritance.close_ready()


def test_a_stop_ends_the_successor_too(stage: Stage) -> None:
    supervisor = stage.serving()
    inheritance = take_over(stage, supervisor)
    supervisor._on_signal(signal.SIGTERM)
    assert stage.killed == [77] and supervisor._fleet.stopping
    os.close(inheritance.its_ready)


def inherited(
    stage: Stage, workers: dict[str, Any] | None, memory_fd: int = -1, store_fd: int = -1
) -> None:
    """Return the inheritance of the next supervisor."""

    class Given(Inheritance):
        def __init__(self) -> None:
            super().__init__()
            self.takes_over, self.workers, self.memory_fd = True, workers, memory_fd
            self.store_fd = store_fd

    stage.patch.setattr(module, "Inheritance", Given)


def test_its_workers_have_the_other_half_of_the_same_memory(stage: Stage) -> None:
    first = stage.serving()
    first._shared.heads[1] = 5
    inherited(stage, {"count": 2, "generation": 0, "layout": LAYOUT}, first._memory_fd)
    second = stage.open()
    step(second)
    assert [one.parts.place.place for one in stage.workers] == [0, 1, 2, 3]
    assert second._shared.heads[1] == 5
    assert second._secrets == first._secrets


def test_a_takeover_waits_while_the_process_before_still_has_the_other_half(stage: Stage) -> None:
    """The workers of the next one would have the places of workers that still drain."""
    first = stage.serving()
    workers = {"count": 2, "generation": 0, "layout": LAYOUT, "pid": 4242}
    inherited(stage, workers, first._memory_fd)
    stage.patch.setattr(os, "getppid", lambda: 4242)
    second = stage.serving()
    second._inheritance = inheritance = FakeInheritance()
    inheritance.memory_fd = first._memory_fd
    second._on_signal(signal.SIGUSR2)
    step(second)
    assert stage.events("takeover") == [] and stage.events("takeover-waits")
    stage.patch.setattr(os, "getppid", lambda: 1)
    step(second)
    assert stage.events("takeover") == [{"successor": 77}]
    os.close(inheritance.its_ready)


@pytest.mark.parametrize("same", [True, False])
def test_a_successor_leaves_the_store_that_was_found_broken(
    stage: Stage, tmp_path: Path, same: bool
) -> None:
    """Reading it would kill its workers as well. In another folder there is nothing broken."""
    folder, other = str(tmp_path / "store"), str(tmp_path / "other")
    first = stage.serving(store=folder, store_disk_bytes=1 << 20, store_memory_bytes=8 << 20)
    first._inheritance = inheritance = FakeInheritance()
    stage.end(first, stage.workers[0], signal.SIGBUS)
    first._on_signal(signal.SIGUSR2)
    lock_fd, before = first._store_lock_fd, len(stage.workers)
    inherited(stage, inheritance.given["workers"], first._memory_fd, os.dup(lock_fd))
    second = stage.open(
        store=folder if same else other, store_disk_bytes=1 << 20, store_memory_bytes=8 << 20
    )
    step(second)
    used = {one.parts.store.path for one in stage.workers[before:]}
    assert used == ({""} if same else {other})
    assert len(stage.events("store-broken")) == (2 if same else 1)
    for fd in {lock_fd, second._store_lock_fd, inheritance.its_ready}:
        os.close(fd)


@pytest.mark.parametrize("served", [False, True])
def test_a_successor_that_never_served_leaves_the_store_to_the_process_before(
    stage: Stage, tmp_path: Path, served: bool
) -> None:
    first = stage.serving()
    folder = tmp_path / "lent"
    workers = {
        "count": 2, "generation": 0, "layout": LAYOUT, "store": "", "temporary_store": str(folder)
    }  # fmt: skip
    inherited(stage, workers, first._memory_fd)
    start = stage.serving if served else stage.open
    second = start(store_memory_bytes=16 << 20)
    assert second._store.temporary and folder.is_dir()
    second._close()
    assert folder.is_dir() is not served
    os.close(second._store_lock_fd)


@pytest.mark.parametrize("to_disk", [False, True])
def test_what_the_process_before_had_as_a_store_is_given_back(
    stage: Stage, tmp_path: Path, to_disk: bool
) -> None:
    """Its lock, and its folder in memory: that of `--store` stays."""
    left, store = tmp_path / "left", tmp_path / "store"
    left.mkdir()
    first = stage.serving()
    workers = {
        "count": 2, "generation": 0, "layout": LAYOUT, "pid": 4242,
        "store": str(left), "temporary_store": str(left) if to_disk else "",
    }  # fmt: skip
    lock_fd = os.open(left / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    inherited(stage, workers, first._memory_fd, lock_fd)
    stage.patch.setattr(os, "getppid", lambda: 4242)
    changes = {"store": str(store), "store_disk_bytes": 1 << 20} if to_disk else {}
    second = stage.serving(store_memory_bytes=8 << 20 if to_disk else 0, **changes)
    with open(left / "lock") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    step(second)
    assert left.is_dir(), "the workers of the process before still use it"
    stage.patch.setattr(os, "getppid", lambda: 1)
    step(second)
    assert left.is_dir() is not to_disk
    if second._store_lock_fd >= 0:
        os.close(second._store_lock_fd)


def test_a_successor_says_that_it_uses_the_folder_when_it_serves(
    stage: Stage, tmp_path: Path
) -> None:
    folder = str(tmp_path / "store")
    how: dict[str, Any] = {
        "store": folder, "store_disk_bytes": 1 << 20, "store_memory_bytes": 8 << 20
    }  # fmt: skip
    first = stage.serving(**how)
    first._inheritance = inheritance = FakeInheritance()
    first._on_signal(signal.SIGUSR2)
    number = os.getpid()
    stage.patch.setattr(os, "getpid", lambda: number + 1)
    inherited(stage, inheritance.given["workers"], first._memory_fd, first._store_lock_fd)
    second = stage.open(**how)
    step(second)
    assert used_by(folder) == number
    for worker in stage.workers[2:]:
        worker.say(Kind.READY)
    step(second)
    assert used_by(folder) == number + 1
    for fd in (first._store_lock_fd, inheritance.its_ready):
        os.close(fd)


def test_a_folder_in_the_place_of_the_one_before_is_locked_anew(
    stage: Stage, tmp_path: Path
) -> None:
    """Moved away while RETTER ran: a second one could use the new folder."""
    folder = tmp_path / "store"
    how: dict[str, Any] = {
        "store": str(folder), "store_disk_bytes": 1 << 20, "store_memory_bytes": 8 << 20
    }  # fmt: skip
    first = stage.serving(**how)
    first._inheritance = inheritance = FakeInheritance()
    first._on_signal(signal.SIGUSR2)
    folder.rename(tmp_path / "moved")
    lock_fd = os.dup(first._store_lock_fd)
    inherited(stage, inheritance.given["workers"], first._memory_fd, lock_fd)
    second = stage.open(**how)
    with open(folder / "lock") as again, pytest.raises(BlockingIOError):
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not second._shares_store
    for fd in (first._store_lock_fd, second._store_lock_fd, inheritance.its_ready):
        os.close(fd)


def test_a_memory_in_which_another_version_writes_otherwise_needs_a_restart(stage: Stage) -> None:
    first = stage.serving()
    inherited(stage, {"count": 2, "generation": 0, "layout": LAYOUT - 1}, first._memory_fd)
    with pytest.raises(ConfigError, match="needs a restart"):
        stage.open()


def test_a_memory_that_is_divided_in_another_way_needs_a_restart(stage: Stage) -> None:
    memory_fd = os.memfd_create("other")
    os.ftruncate(memory_fd, 4096)
    inherited(stage, {"count": 2, "generation": 0, "layout": LAYOUT}, memory_fd)
    try:
        with pytest.raises(ConfigError, match="needs a restart"):
            stage.open()
    finally:
        os.close(memory_fd)


@pytest.mark.parametrize("before", [None, {"count": 3, "generation": 0}])
def test_another_number_of_workers_needs_a_restart(
    stage: Stage, before: dict[str, Any] | None
) -> None:
    inherited(stage, before)
    with pytest.raises(ConfigError, match="needs a restart"):
        stage.open()


# -- before anything begins


def test_a_port_in_use_is_refused(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match="another program listens there"):
            stage.open(listen=("127.0.0.1:0", f"127.0.0.1:{port}"))


def test_a_path_is_shared_by_all_workers_and_removed_at_the_end(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    supervisor = stage.serving(listen=(f"unix:{path}",), admin="off")
    first, second = stage.workers
    assert first.parts.sockets == second.parts.sockets
    supervisor._close()
    assert not path.exists()


def test_only_some_systems_have_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ConfigError, match="Linux"):
        supervise(SETTINGS, lambda: SETTINGS)


def test_what_boxes_share_is_looked_at_before_a_worker_is_started() -> None:
    settings = replace(SETTINGS, shared="redis://127.0.0.1/0", shared_secret="/dev/null")
    with pytest.raises(ConfigError, match="too few for a secret"):
        supervise(settings, lambda: settings)


def test_auto_is_one_for_each_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert [worker_count(wanted) for wanted in (0, 1, 3)] == [6, 1, 3]


def test_a_link_of_a_worker_that_is_gone_is_not_read(stage: Stage) -> None:
    supervisor = stage.serving()
    descriptor = supervisor._links[0]
    assert descriptor is not None
    number = descriptor.fileno()
    stage.end(supervisor, stage.workers[0], 1 << 8)
    supervisor._on_link(number)
    assert select.select([supervisor._wake], [], [], 0)[0] == []

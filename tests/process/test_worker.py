"""One of several workers, in this process: the test is its supervisor."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from retter.admin.worker_figures import Board
from retter.base.shared_memory import bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.config.settings import ConfigError, Settings
from retter.disk.shared_opening import prepare
from retter.process import worker as module
from retter.process.store_place import StorePlace
from retter.process.worker import HANDED_OVER, WorkerParts, run_worker, serve
from retter.process.worker_link import Kind, Message, pair, received, send
from retter.proxy.secrets import Secrets

IN_TIME_S = 20.0


class Supervisor:
    """The other end of the link."""

    def __init__(self, folder: Path | None = None, **changes: Any) -> None:
        self.settings = Settings(
            upstream="127.0.0.1:1", listen=("127.0.0.1:0",), admin="off", workers=2, **changes
        )
        self.store = StorePlace("", 0)
        lock_fd = -1
        if folder is not None:
            self.store = StorePlace(str(folder), 1 << 20)
            lock_fd = prepare(replace(self.settings, store=str(folder)), 2)
        self.shared = divided(memoryview(bytearray(bytes_for(2))), 2)
        self.link, its = pair()
        self.listener = socket.create_server(("127.0.0.1", 0), reuse_port=True)
        self.parts = WorkerParts(
            settings=self.settings,
            reread=lambda: self.settings,
            place=WorkerPlace(1, 2, 1, self.shared, lock_fd),
            sockets=[self.listener.dup()],
            link=its,
            secrets=Secrets(),
            store=self.store,
        )

    async def hears(self) -> Message:
        """Wait for the next message."""
        async with asyncio.timeout(IN_TIME_S):
            while not (found := received(self.link)):  # noqa: ASYNC110 - from another socket
                await asyncio.sleep(0.005)
        assert len(found) == 1
        return found[0]

    def say(self, kind: Kind, text: str = "") -> None:
        send(self.link, Message(kind, text))

    def close(self) -> None:
        for one in (self.link, self.parts.link, self.listener, *self.parts.sockets):
            one.close()


@contextlib.asynccontextmanager
async def serving(supervisor: Supervisor) -> AsyncIterator["asyncio.Task[int]"]:
    """Run a worker that serves."""
    task = asyncio.ensure_future(serve(supervisor.parts))
    try:
        assert await supervisor.hears() == Message(Kind.READY)
        yield task
        async with asyncio.timeout(IN_TIME_S):
            assert await task == 0
    finally:
        task.cancel()
        supervisor.close()


def test_it_serves_reloads_and_drains(tmp_path: Path) -> None:
    async def main() -> None:
        supervisor = Supervisor(tmp_path / "store")
        async with serving(supervisor):
            assert supervisor.shared.last_beat(1) > 0
            reader, writer = await asyncio.open_connection(*supervisor.listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 50")
            writer.close()
            await writer.wait_closed()
            for kind, answer in (
                (Kind.CLOSE_STORE, Kind.CLOSED),
                (Kind.RELOAD, Kind.RELOADED),
            ):
                supervisor.say(kind)
                assert (await supervisor.hears()).kind is answer
            supervisor.say(Kind.OPEN_STORE)
            supervisor.say(Kind.LEAVE_STORE, "broken")
            supervisor.say(Kind.DRAIN)

    asyncio.run(main())


@pytest.mark.parametrize("alike", [False, True])
def test_it_holds_its_pages_back_until_it_is_known_whether_its_successor_may_show_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: bool
) -> None:
    """With `--shared`, too, where another object stands before the disk."""
    seen: list[module.Worker] = []

    class Seen(module.Worker):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            seen.append(self)

    monkeypatch.setattr(module, "Worker", Seen)
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4)
    options = {"shared": "redis://127.0.0.1:1", "shared_secret": str(secret)}

    async def main() -> None:
        supervisor = Supervisor(tmp_path / "store", **options)
        async with serving(supervisor):
            behind = seen[0]._shared_behind()
            assert behind is not None and behind is not seen[0]._proxy._services.store.behind
            supervisor.say(Kind.CLOSE_STORE)
            assert (await supervisor.hears()).kind is Kind.CLOSED
            assert behind.holds and not behind.closed
            if alike:
                supervisor.say(Kind.OPEN_STORE)
            supervisor.say(Kind.DRAIN, HANDED_OVER)
        assert not behind.holds and behind.closed is not alike

    asyncio.run(main())


def test_settings_that_do_not_fit_are_told() -> None:
    async def main() -> None:
        supervisor = Supervisor(store_memory_bytes=0, store_object_bytes_max=0)
        async with serving(supervisor):
            supervisor.settings = replace(supervisor.settings, access_log="/nowhere/at/all")
            supervisor.say(Kind.RELOAD)
            said = await supervisor.hears()
            assert said.kind is Kind.NOT_RELOADED and "access_log" in said.text
            supervisor.say(Kind.DRAIN, HANDED_OVER)

    asyncio.run(main())


def test_it_passes_the_signal_for_a_successor_on() -> None:
    async def main() -> None:
        supervisor = Supervisor(store_memory_bytes=0, store_object_bytes_max=0)
        async with serving(supervisor):
            os.kill(os.getpid(), signal.SIGUSR2)
            assert await supervisor.hears() == Message(Kind.TAKE_OVER)
            supervisor.say(Kind.DRAIN)

    asyncio.run(main())


def test_it_passes_nothing_on_when_its_supervisor_was_killed() -> None:
    async def main() -> None:
        supervisor = Supervisor(store_memory_bytes=0, store_object_bytes_max=0)
        with capture_logs() as logs:
            async with serving(supervisor) as task:
                supervisor.link.close()
                while not any(one["event"] == "supervisor-gone" for one in logs):
                    assert not task.done()
                    await asyncio.sleep(0)
                os.kill(os.getpid(), signal.SIGUSR2)
        assert "signal-passed-on" not in [one["event"] for one in logs]

    asyncio.run(main())


def test_it_tells_its_figures_once_more_at_the_end() -> None:
    async def main() -> None:
        supervisor = Supervisor(store_memory_bytes=0, store_object_bytes_max=0)
        async with serving(supervisor):
            reader, writer = await asyncio.open_connection(*supervisor.listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await reader.read()
            writer.close()
            supervisor.say(Kind.DRAIN)
        told = Board(supervisor.shared, 0).others()[1]
        assert told["totals"]["connections"] == 1

    asyncio.run(main())


def test_it_ends_when_its_supervisor_has_ended() -> None:
    async def main() -> None:
        supervisor = Supervisor(store_memory_bytes=0, store_object_bytes_max=0)
        async with serving(supervisor):
            supervisor.link.close()

    asyncio.run(main())


def test_it_ends_alone_when_it_is_asked_to() -> None:
    async def main() -> None:
        supervisor = Supervisor(store_memory_bytes=0, store_object_bytes_max=0)
        async with serving(supervisor):
            signal.raise_signal(signal.SIGTERM)
            assert await supervisor.hears() == Message(Kind.DRAINING)

    asyncio.run(main())


def run_with(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int) -> tuple[int, Any]:
    """Run a worker whose loop ends so; return the exit code and what it said."""
    supervisor = Supervisor(store_memory_bytes=0, store_object_bytes_max=0)

    def run(main: Any, _: str) -> int:
        main.close()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(module, "run_on_loop", run)
    monkeypatch.setattr(module, "forked", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    try:
        return run_worker(supervisor.parts), received(supervisor.link)
    finally:
        supervisor.close()


def test_what_the_operator_must_change_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = run_with(monkeypatch, ConfigError("tls_cert: no"))
    assert (code, said) == (2, [Message(Kind.FAILED, "tls_cert: no")])


def test_its_exit_code_is_that_of_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with(monkeypatch, 0) == (0, [])

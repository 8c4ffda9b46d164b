"""Listening and ending: addresses, sockets, descriptors, signals."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import retter
from retter.breaker import Transition
from retter.config.reload import Reload
from retter.config.settings import ConfigError, Settings
from retter.net.handover import Successor
from retter.net.sockets import ListenError
from retter.process import running
from retter.process.running import (
    SAME_SIGNAL_S,
    Program,
    raise_descriptor_limit,
    run,
    run_on_loop,
)
from tests.support.harness import (
    FakeLoop,
    body_of,
    get,
    reply,
    status_of,
)


def test_the_descriptor_limit_is_raised_to_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert raise_descriptor_limit() == 4096
    assert asked == [(4096, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (-1, -1))
    assert raise_descriptor_limit() == sys.maxsize

    def refuse(*_: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 256


@pytest.mark.parametrize("event_loop", ["auto", "asyncio", "uvloop"])
def test_loops(event_loop: str) -> None:
    async def main() -> int:
        return "uvloop" in type(asyncio.get_running_loop()).__module__

    assert run_on_loop(main(), event_loop) == (event_loop != "asyncio")


def test_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        return 7

    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run_on_loop(main(), "auto") == 7
    work = main()
    with pytest.raises(ImportError):
        run_on_loop(work, "uvloop")
    work.close()


def settings(tmp_path: Path, **more: Any) -> Settings:
    more.setdefault("listen", (f"unix:{tmp_path}/front",))
    return Settings(upstream=f"unix:{tmp_path}/back", **more)


def serve(tmp_path: Path, chosen: Settings, during: Any) -> int:
    """Run as the command line does, with a client inside the same loop."""
    started: list[asyncio.Task[None]] = []

    class Log:
        def info(self, event: str, **_: object) -> None:
            if event == "serving":
                started.append(asyncio.get_running_loop().create_task(during()))

        warning = error = info

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retter.process.running.log", Log())
        code = run(chosen)
    for task in started:
        assert task.done()
        task.result()
    return code


@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, event_loop: str, number: signal.Signals) -> None:
    answer = b""

    async def during() -> None:
        nonlocal answer

        async def application(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                if await reader.readline():  # else nobody has asked: a look whether we listen
                    os.kill(os.getpid(), number)  # in the middle of the request
                    await asyncio.sleep(0.1)
                    writer.write(reply(b"hello"))

        back = await asyncio.start_unix_server(application, str(tmp_path / "back"))
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "front"))
        writer.write(get())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        back.close()

    assert serve(tmp_path, settings(tmp_path, event_loop=event_loop), during) == 0
    assert (status_of(answer), body_of(answer)) == (200, b"hello")
    assert not (tmp_path / "front").exists()


def test_signals_of_the_same_second_are_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal and the parent process both pass it on; only a later one is impatience."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)

    async def main() -> None:
        running: Any = None
        program = Program(running, lambda: Settings(upstream=":1"))
        clock: Any = FakeLoop()
        program._loop = clock
        for _ in range(5):  # while it drains already
            program._on_stop()
            clock.now += SAME_SIGNAL_S / 5
            assert program._stopping.is_set() and not exits
        clock.now += 0.01
        program._on_stop()
        assert exits == [1]

    asyncio.run(main())


def test_draining_has_an_end(tmp_path: Path) -> None:
    async def during() -> None:
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "front"))
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        writer.close()

    assert serve(tmp_path, settings(tmp_path, drain_s=0.2, connect_hold_s=5), during) == 0


def test_what_cannot_be_listened_on_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "front").write_text("precious")

    async def never() -> None:
        raise AssertionError("it must not serve")

    assert serve(tmp_path, settings(tmp_path), never) == 1


def test_an_access_log_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path) -> None:
    async def never() -> None:
        raise AssertionError("it must not serve")

    path = tmp_path / "nowhere" / "access.log"
    with pytest.raises(ConfigError, match=f"access_log: {path}: No such file"):
        serve(tmp_path, settings(tmp_path, access_log=str(path)), never)


def test_few_descriptors_mean_few_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retter.process.running.raise_descriptor_limit", lambda: 256)
    seen: list[int] = []

    async def during() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    async def spy(chosen: Settings, _: object) -> int:
        seen.append(chosen.connections_max)
        return 0

    monkeypatch.setattr("retter.process.running._serve", spy)
    serve(tmp_path, settings(tmp_path), during)
    assert 0 < seen[0] < 256


def test_running_inside_another_program(tmp_path: Path) -> None:
    transitions: list[Transition] = []

    async def main() -> None:
        chosen = settings(tmp_path, listen=("127.0.0.1:0", f"unix:{tmp_path}/front"))
        async with retter.running(chosen, transitions.append) as proxy:
            assert proxy.address == proxy.addresses[0]
            assert proxy.address.startswith("http://127.0.0.1:")
            assert proxy.addresses[1] == f"unix:{tmp_path}/front"
            assert proxy.state == "CLOSED"
            proxy.set_circuit("open")
            assert proxy.state == "OPEN"
            with pytest.raises(ValueError, match="ajar"):
                proxy.set_circuit("ajar")
            assert proxy.stats()["connections"]["open"] == 0

    asyncio.run(main())
    assert transitions
    assert not (tmp_path / "front").exists()


def test_an_address_that_is_taken_leaves_nothing_open(tmp_path: Path) -> None:
    async def main(port: int) -> None:
        chosen = settings(tmp_path, listen=(f"unix:{tmp_path}/front", f"127.0.0.1:{port}"))
        with pytest.raises(ListenError):
            async with retter.running(chosen):
                raise AssertionError("it must not serve")

    with socket.create_server(("127.0.0.1", 0)) as other:
        asyncio.run(main(other.getsockname()[1]))
    assert not (tmp_path / "front").exists()


class FakeRunning:
    """What a Program steers."""

    def __init__(self) -> None:
        self.reloads = 0
        self.handed = False

    def reload(self, wanted: Settings) -> Reload:
        self.reloads += 1
        return Reload(wanted, {}, {})

    def hand_over(self) -> Successor:
        """Start a process that never says that it serves."""
        ready, its_ready = os.pipe()
        os.set_inheritable(its_ready, True)
        pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        os.close(its_ready)
        return Successor(pid, ready)

    def handed_over(self) -> None:
        self.handed = True

    def not_handed_over(self) -> None:
        self.handed = False


def with_program(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[running.Program, FakeRunning], Any]
) -> None:
    async def run() -> None:
        fake: Any = FakeRunning()
        program = running.Program(fake, lambda: Settings(upstream=":1"))
        async with asyncio.timeout(10):
            await act(program, fake)

    monkeypatch.setattr(running, "configure_log", lambda *_: None)
    asyncio.run(run())


def test_a_storm_of_hangups_is_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read all files, one after the other, and nobody was served meanwhile."""

    async def act(program: running.Program, fake: FakeRunning) -> None:
        for _ in range(2):
            for _ in range(50):
                program._on_hangup()
            await asyncio.sleep(0)
        assert fake.reloads == 2

    with_program(monkeypatch, act)


def test_a_successor_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was, for ever, and no other could be started."""
    monkeypatch.setattr(running, "SUCCESSOR_S", 0.05)

    async def act(program: running.Program, fake: FakeRunning) -> None:
        for _ in range(2):
            program._on_take_over()
            assert program._successor is not None
            pid = program._successor.pid
            while program._successor is not None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)  # not even a zombie is left
        assert not fake.handed
        assert not program._stopping.is_set()

    with_program(monkeypatch, act)


def test_what_starting_has_freed_goes_back_to_the_system() -> None:
    code = """
import re
from retter.process.running import _give_back_freed_memory

def resident_kib():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\\s+(\\d+)", status.read())[1])

blocks = [bytes(4000) for _ in range(10_000)]
last = blocks.pop()
del blocks
before = resident_kib()
_give_back_freed_memory()
print(before - resident_kib())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) > 30_000

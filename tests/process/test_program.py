"""The whole program: it serves, drains and ends."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from retter.config.settings import ConfigError, Settings
from retter.process.program import run
from retter.process.serving import run_on_loop
from tests.support.harness import body_of, get, reply, status_of


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
        patch.setattr("retter.process.program.log", Log())
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
    monkeypatch.setattr("retter.process.descriptors.raise_descriptor_limit", lambda: 256)
    seen: list[int] = []

    async def during() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    async def spy(chosen: Settings, _: object) -> int:
        seen.append(chosen.connections_max)
        return 0

    monkeypatch.setattr("retter.process.program._serve", spy)
    serve(tmp_path, settings(tmp_path), during)
    assert 0 < seen[0] < 256


@pytest.mark.parametrize(("cpus", "alone"), [(1, True), (2, False)])
def test_one_worker_for_each_cpu_is_one_process_on_one_cpu(
    monkeypatch: pytest.MonkeyPatch, cpus: int, alone: bool
) -> None:
    seen: list[tuple[int, int]] = []

    async def serve_alone(chosen: Settings, reread: Any) -> int:
        seen.append((chosen.workers, reread().workers))
        return 0

    def supervise(chosen: Settings, _: object) -> int:
        seen.append((chosen.workers, chosen.workers))
        return 0

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr("retter.process.program._serve", serve_alone)
    monkeypatch.setattr("retter.process.supervisor.supervise", supervise)
    wanted = Settings(upstream=":1", workers=0)
    assert run(wanted, lambda: wanted) == 0
    assert seen == [(1, 1) if alone else (0, 0)]

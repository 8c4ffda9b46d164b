"""The thread that talks to the server: its results, and an end that waits for nothing."""

import asyncio
import threading
from typing import Any

import pytest

from retter.far import thread
from retter.far.thread import Daemon

DEADLINE_S = 30.0


def test_results_and_faults_come_back_on_the_loop() -> None:
    async def main() -> list[Any]:
        worker = Daemon(asyncio.get_running_loop(), "test")
        came: asyncio.Queue[Any] = asyncio.Queue()
        worker.submit(threading.get_ident, came.put_nowait)
        worker.submit(lambda: 1 // 0, came.put_nowait)
        results = [await came.get(), await came.get()]
        assert worker.finish(lambda: results.append("last"), DEADLINE_S)
        return results

    ident, fault, last = asyncio.run(main())
    assert ident != threading.get_ident()
    assert isinstance(fault, ZeroDivisionError) and last == "last"


def test_the_end_waits_no_longer_than_it_is_told_to() -> None:
    async def main() -> None:
        worker = Daemon(asyncio.get_running_loop(), "test")
        gate, began, ended = threading.Event(), threading.Event(), threading.Event()
        came: list[Any] = []

        def job() -> None:
            began.set()
            gate.wait(DEADLINE_S)

        worker.submit(job, came.append)
        worker.submit(lambda: came.append("a job that had not begun"), came.append)
        assert began.wait(DEADLINE_S)
        assert not worker.finish(ended.set, 0.0)
        gate.set()
        assert ended.wait(DEADLINE_S), "what is last is done then"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert came == []

    asyncio.run(main())


def test_the_process_does_not_wait_for_it_either() -> None:
    async def main() -> bool:
        worker = Daemon(asyncio.get_running_loop(), "a name to be found")
        came: asyncio.Queue[Any] = asyncio.Queue()
        worker.submit(threading.current_thread, came.put_nowait)
        own: threading.Thread = await came.get()
        assert worker.finish(lambda: None, DEADLINE_S)
        return own.daemon

    assert asyncio.run(main())


def test_without_memory_for_a_thread_a_job_fails_and_the_end_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(thread, "Thread", NoThread)

    async def main() -> None:
        worker = Daemon(asyncio.get_running_loop(), "test")
        came: asyncio.Queue[Any] = asyncio.Queue()
        worker.submit(int, came.put_nowait)
        assert isinstance(await came.get(), RuntimeError)
        assert not worker.finish(lambda: None, DEADLINE_S)

    asyncio.run(main())

"""A thread beside the event loop that talks to the server. It cannot delay the process's end.

A server can be slow in ways that no time limit of a socket ends, for example with one octet a
second. So the process waits for this thread for a limited time only; for the threads of an executor
(retter/disk/threads.py) it would wait until they are done.
"""

import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

_Job = tuple[Callable[[], Any], Callable[[Any], None] | None]  # without `done`: the last one


class JobThread(Protocol):
    """The interface for work outside the event loop."""

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do a job; `done` is called on the loop with its result or the exception."""
        ...

    def finish(self, last: Callable[[], None], seconds: float) -> bool:
        """Do a last job after the present one; no `done` is called any more.

        Args:
            last: Raises nothing.
            seconds: How long this waits for it.

        Returns:
            Whether it was done in this time.
        """
        ...


class Daemon:
    """One thread, started with the first job."""

    def __init__(self, loop: "asyncio.AbstractEventLoop", name: str) -> None:
        self._loop = loop
        self._name = name
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._thread: Thread | None = None
        self._closed = False

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do a job; `done` is called on the loop with its result or the exception."""
        try:
            self._start()
        except RuntimeError as error:  # no memory for a thread
            self._loop.call_soon(done, error)
        else:
            self._jobs.put((job, done))

    def _start(self) -> None:
        if self._thread is None:
            thread = Thread(target=self._work, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        while True:
            job, done = self._jobs.get()
            if done is None:
                job()
                return
            if self._closed:
                continue
            try:
                result = job()
            except Exception as error:  # noqa: BLE001 - it is the result
                result = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._done, done, result)

    def _done(self, done: Callable[[Any], None], result: Any) -> None:
        if not self._closed:
            done(result)

    def finish(self, last: Callable[[], None], seconds: float) -> bool:
        """Do a last job after the present one; no `done` is called any more.

        Returns:
            Whether it was done in this time.
        """
        self._closed = True
        is_done = Event()

        def job() -> None:
            last()
            is_done.set()

        try:
            self._start()
        except RuntimeError:
            return False
        self._jobs.put((job, None))
        return is_done.wait(seconds)

"""Threads beside the event loop: one reads the disk, one writes it."""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor


class Threads(Protocol):
    """The interface for work outside the event loop."""

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do a job; `done` is called on the loop with its result or the exception."""
        ...

    def close(self) -> None:
        """Wait until all jobs are done; `done` is not called any more."""
        ...


class Thread:
    """One thread, started with the first job."""

    def __init__(self, loop: "asyncio.AbstractEventLoop", name: str) -> None:
        self._loop = loop
        self._name = name
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do a job; `done` is called on the loop with its result or the exception."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(1, self._name)
        try:
            future = self._executor.submit(job)
        except RuntimeError as error:  # no memory for a thread
            self._loop.call_soon(done, error)
            return
        future.add_done_callback(lambda future: self._hand_over(future, done))

    def _hand_over(self, future: Future[Any], done: Callable[[Any], None]) -> None:
        if not self._closed:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._done, future, done)

    def _done(self, future: Future[Any], done: Callable[[Any], None]) -> None:
        if not self._closed and not future.cancelled():
            error = future.exception()
            done(future.result() if error is None else error)

    def close(self) -> None:
        """Wait until all jobs are done; `done` is not called any more."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

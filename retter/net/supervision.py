"""Exceptions in our own tasks and callbacks: they are reported and stop no other work.

asyncio reports the exception of a task when the task is collected, which may be late or never. So
every task is started here; a test checks it. An exception in a callback ends that callback, and
its remaining work is not done. So a callback that serves several requests, one after the other,
catches the exception of each one and reports it here.
"""

import asyncio
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


def start_task(
    loop: asyncio.AbstractEventLoop, work: "asyncio._CoroutineLike[Result]", about: str
) -> "asyncio.Task[Result]":
    """Start a task whose exception is reported when it ends.

    The caller keeps a reference to it until then: the loop has only a weak one.

    Args:
        about: What the task does, for the report.
    """
    task = loop.create_task(work)
    task.add_done_callback(partial(_look_at, loop, about))
    return task


def _look_at(loop: asyncio.AbstractEventLoop, about: str, task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        report(loop, f"a task has failed: {about}", error)


def report(loop: asyncio.AbstractEventLoop, message: str, error: BaseException) -> None:
    """Report an exception to the loop's exception handler (loop_errors.py)."""
    loop.call_exception_handler({"message": message, "exception": error})

"""Work of our own that ends with an exception: it is told, and everybody else's goes on.

asyncio tells of a task's exception when the task is collected, which may be late or never. So every
task is started here, and a test sees to it. An exception in a callback ends that callback: what it
had still to do for others stays undone. So whoever does something for many, one after the other,
catches what goes wrong with each of them, and reports it here.
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
    """Tell what has gone wrong to the loop's exception handler (loop_errors.py)."""
    loop.call_exception_handler({"message": message, "exception": error})

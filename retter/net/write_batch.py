"""Messages that are written together, once the event loop has passed on all that had come.

A write to a socket wakes a process on the same machine that waits for it. If its processor has gone
to sleep meanwhile, that takes 13 to 25 us of the writer's time on a virtual machine, as much as all
else that the kernel does for a request. A write to a process that is awake takes 2.5 us. If each
message is written when it is ready, the application and the clients have read it, and sleep again
before the next one comes. If several are written one after another, the first one wakes its reader,
and the others find it awake. docs/performance.md has the figures.

This is done only while many messages become ready in one step of the event loop. With few
connections the application and the clients work while RETTER reads the next message. If all were
written at the end of a step, each side would wait for the other (measured with four connections:
half as many requests a second). So it ends with a step in which less than FULL_MIN batches were
full, and one step in 50 ms is tried.

A message waits for the other events of its step, and for MESSAGES_MAX messages at most.
"""

import asyncio
from typing import Final, Protocol

from retter.net.supervision import report

# More than 8 make no request cheaper, and the first one would wait longer: at 20 us each, 0.3 ms.
# No message is much longer than 64 KiB (client_writer.py), so that all together have 1 MiB.
MESSAGES_MAX: Final = 16
# With 16 connections a step has some 16 messages, and a request took a tenth longer. With 64 and
# new heads it has 50.
FULL_MIN: Final = 2


class Writer(Protocol):
    """One connection that has a message to write."""

    def write_waiting(self) -> None:
        """Write the message, if it still waits."""
        ...

    def abort(self) -> None:
        """Close at once: the message cannot be written."""
        ...


class WriteBatch:
    """The connections of one event loop that have something to write.

    The message itself waits in its connection: whatever else the connection writes, and its end,
    come after it.

    Attributes:
        gathers: Whether messages wait; else they are written when they are ready.
        messages_max: So many are written without waiting for the end of the step.
    """

    __slots__ = ("_due", "_full", "_loop", "_writers", "gathers", "messages_max")

    def __init__(self, loop: asyncio.AbstractEventLoop, messages_max: int = MESSAGES_MAX) -> None:
        self.gathers = False
        self.messages_max = messages_max
        self._loop = loop
        self._writers: list[Writer] = []
        self._due = False
        self._full = 0  # batches of this step

    def try_step(self) -> None:
        """Let the messages of the next step wait; called with each tick."""
        self.gathers = True

    def add(self, writer: Writer) -> None:
        """Let a connection write soon; only while messages wait."""
        writers = self._writers
        writers.append(writer)
        if len(writers) >= self.messages_max:
            self._full += 1
            self._write_all()
        if not self._due:
            self._due = True
            try:
                self._loop.call_soon(self._at_end_of_step)
            except MemoryError:
                self._due = False  # the next one tries again
                raise

    def write_now(self, writer: Writer) -> None:
        """Let a connection write before the end of the step; a fault ends that connection alone."""
        self._write([writer])

    def _at_end_of_step(self) -> None:
        self._due = False
        self.gathers, self._full = self._full >= FULL_MIN, 0
        self._write_all()

    def _write_all(self) -> None:
        writers, self._writers = self._writers, []
        self._write(writers)

    def _write(self, writers: list[Writer]) -> None:
        for writer in writers:
            try:
                writer.write_waiting()
            except Exception as error:  # noqa: BLE001 - reported to the loop; the others still write
                writer.abort()
                report(self._loop, "a message could not be written", error)

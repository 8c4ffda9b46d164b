"""Exceptions that reach the event loop because nobody else could catch them.

On asyncio's own loop, running out of descriptors while accepting is one of them: the loop stops
accepting for a second, and reports it once for each place in the backlog. Meanwhile RETTER closes
idle client connections, so that descriptors are free when the loop continues. (uvloop closes new
connections at once and reports nothing.)

Out of memory: the store is emptied first, since it is the largest part and the only one that RETTER
can do without. If that does not help, the loop could only fail: a listener that cannot accept is
reported again and again. Then the process ends with exit code 1 and one line, so that its
supervisor restarts it.

Everything else is a fault of RETTER itself and is logged with its traceback, a few times a second
at most.
"""

import asyncio
import errno
import os
from typing import Any, Final, NoReturn

from retter.proxy.services import Services, free_memory
from retter.proxy.ticker import Ticker
from retter.telemetry.line_writer import CLOSE_S
from retter.telemetry.log import flush, get_logger

# Connections closed when descriptors have run out: as many as a small site accepts in a second.
ROOM_CONNECTIONS: Final = 32
AGAIN_S: Final = 1.0  # asyncio accepts again after this time

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# asyncio closes a sending side in a callback when the last octets have been sent. If the other side
# has reset the connection by then, that callback raises. The protocol gets connection_lost as well,
# so there is nothing to report.
_LOST: Final = frozenset({errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET})
_WRITING: Final = "_SelectorSocketTransport._write"

# A report with its traceback has some 2 KB. More of the same kind would only fill disks.
FAULTS_LOGGED_MAX: Final = 5  # in a second

# A loop that can only fail raises tens of thousands of errors a second. A hundred connections that
# fail once each are not that case: after the store has been emptied, the next second may be good.
MEMORY_ERRORS_MAX: Final = 200  # in a second, then the process ends

# Address space that is released when memory runs out, so that the error can be handled. It is never
# written to, so it takes no memory until then.
RESERVE_BYTES: Final = 8 * 1024 * 1024

_LAST_WORDS: Final = b'{"level": "error", "event": "out-of-memory", "exit_code": 1}\n'

log = get_logger()


class LoopFaults:
    """A handler for `loop.set_exception_handler`; `on_second` is called once a second."""

    def __init__(self, services: Services, ticker: Ticker) -> None:
        self._services = services
        self._ticker = ticker
        self._room_made_at = float("-inf")
        self._second = float("-inf")  # when the present second began
        self._logged = 0  # faults in it
        self._not_logged = 0
        self._memory_errors = 0  # in it
        self._out_logged = 0  # of services.counters.memory_errors
        self._dropped_logged = 0  # of services.counters.memory_dropped
        self._reserve: bytes | None = bytes(RESERVE_BYTES)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, MemoryError):
            try:
                self._out_of_memory(loop.time())
            except MemoryError:
                end_out_of_memory()
        elif isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context:
            self._out_of_descriptors(loop.time(), error)
        elif isinstance(error, OSError) and error.errno in _LOST and _is_writing(context):
            return
        elif self._services.draining and "_start_serving" in repr(context.get("handle")):
            return  # asyncio tries to accept again, but the listener has been closed
        else:
            self._fault(loop.time(), context)

    def on_second(self, now: float) -> None:
        """Log how many reports were left out, and reserve address space again."""
        if self._not_logged:
            log.error("faults", not_logged=self._not_logged)
            self._not_logged = 0
        self._tell_out_of_memory()
        if self._reserve is None and now - self._second >= 1:
            try:
                self._reserve = bytes(RESERVE_BYTES)
            except MemoryError:
                return  # there is still no room

    def _begin_second(self, now: float) -> None:
        if now - self._second >= 1:
            self._second = now
            self._logged = self._memory_errors = 0

    # -- memory

    def _out_of_memory(self, now: float) -> None:
        self._reserve = None
        self._begin_second(now)
        self._memory_errors += 1
        if self._memory_errors > MEMORY_ERRORS_MAX:
            end_out_of_memory()
        free_memory(self._services)
        self._ticker.keep_time()
        if self._memory_errors == 1:
            self._tell_out_of_memory()

    def _tell_out_of_memory(self) -> None:
        counters = self._services.counters
        errors, dropped = counters.memory_errors, counters.memory_dropped
        if errors == self._out_logged:
            return
        store_memory = self._services.store.stats()["bytes_max"]
        log.error(
            "out-of-memory",
            errors=errors - self._out_logged,
            dropped=dropped - self._dropped_logged,
            store_memory=store_memory,
            advice="lower --store-memory, or raise the memory limit of the process or the machine",
        )
        self._out_logged, self._dropped_logged = errors, dropped

    # -- descriptors

    def _out_of_descriptors(self, now: float, error: OSError) -> None:
        if now - self._room_made_at >= AGAIN_S:
            self._room_made_at = now
            closed = sum(self._services.clients.make_room() for _ in range(ROOM_CONNECTIONS))
            log.warning(
                "no-descriptors",
                error=error.strerror,
                idle_closed=closed,
                advice="raise `ulimit -n` (LimitNOFILE= in a systemd unit)",
            )

    # -- our own

    def _fault(self, now: float, context: dict[str, Any]) -> None:
        self._services.counters.faults += 1
        self._begin_second(now)
        self._logged += 1
        if self._logged > FAULTS_LOGGED_MAX:
            self._not_logged += 1
            return
        about = {
            name: repr(value)[:500]
            for name, value in context.items()
            if name not in ("message", "exception")
        }
        log.error(
            "fault",
            message=str(context.get("message"))[:500],
            **about,
            exc_info=context.get("exception"),
        )


def _is_writing(context: dict[str, Any]) -> bool:
    return _WRITING in repr(context.get("handle"))


def end_out_of_memory() -> NoReturn:
    """End the process at once: without memory little else can be done."""
    try:
        flush(CLOSE_S)
        log.error("out-of-memory", exit_code=1, advice="no memory was left to free")
        flush(CLOSE_S)
    except MemoryError:
        os.write(2, _LAST_WORDS)
    os._exit(1)

"""What the event loop reports because nobody else could catch it.

On asyncio's own loop, running out of descriptors while accepting is one of these: the loop stops
accepting for a second, and says so once for each place in the backlog. Clients that wait for
nothing are closed meanwhile, so that there is room when it goes on. (uvloop turns newcomers away
and reports nothing.) Everything else is a fault of ours, and is logged with its traceback.
"""

import asyncio
import errno
from typing import Any

from retter.log import get_logger
from retter.proxy import Proxy

# Closed when descriptors have run out: as many as come again in a second on a small site.
ROOM_CONNECTIONS = 32
AGAIN_S = 1.0       # asyncio goes on accepting after so long

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = get_logger()


class LoopFaults:
    """An exception handler for `loop.set_exception_handler`."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._told_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context:
            now = loop.time()
            if now - self._told_at >= AGAIN_S:
                self._told_at = now
                closed = sum(self._proxy.make_room() for _ in range(ROOM_CONNECTIONS))
                log.warning(
                    "no-descriptors", error=error.strerror, idle_closed=closed,
                    advice="raise `ulimit -n` (LimitNOFILE= in a systemd unit)",
                )  # fmt: skip
        elif self._proxy.draining and "_start_serving" in repr(context.get("handle")):
            return      # asyncio wants to go on accepting, and the listener has been closed
        else:
            loop.default_exception_handler(context)

"""Time limits for the application's next step, in seconds."""

from typing import Final

from retter.config.settings import Settings
from retter.proxy.request import ParsedRequest

# An event stream or a tunnel may be silent for a long time. After this many seconds, it counts as
# dead.
STREAM_IDLE_S: Final = 3600.0

# RFC 9110 section 9.2.1: these methods change nothing, so they do not invalidate stored responses.
SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})


def first_byte_wait_s(settings: Settings, parsed: ParsedRequest, awaited: int) -> float:
    """Return how long RETTER waits for the first byte of a response.

    Args:
        awaited: Whether it is an event stream that has not begun (awaited_streams.py).
    """
    if parsed.stream or awaited:
        return STREAM_IDLE_S
    wait_s = settings.upstream_timeout_s
    if parsed.head.method in SAFE_METHODS:
        return wait_s
    # No stored response can replace this one, and a client that gets an error may repeat its
    # request. To do the same thing twice is worse than to wait.
    return max(wait_s, settings.upstream_timeout_unsafe_s)

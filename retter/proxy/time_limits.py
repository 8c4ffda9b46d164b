"""Time limits for the application's next step, in seconds."""

from typing import Final

from retter.config.settings import Settings
from retter.proxy.request import ParsedRequest

# An event stream or a tunnel may be silent for long: only one that has been silent for so many
# seconds is taken for dead.
STREAM_IDLE_S: Final = 3600.0

# RFC 9110 section 9.2.1: these change nothing, so they make no stored response out of date.
SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})


def first_byte_wait_s(settings: Settings, parsed: ParsedRequest, awaited: int) -> float:
    """Return how long the first byte of an answer is waited for.

    Args:
        awaited: Whether it is an event stream that has not begun (awaited_streams.py).
    """
    if parsed.stream or awaited:
        return STREAM_IDLE_S
    wait_s = settings.upstream_timeout_s
    if parsed.head.method in SAFE_METHODS:
        return wait_s
    # No stored response stands in for its answer, and who gets none may send it again: done
    # twice, that is worse than a wait.
    return max(wait_s, settings.upstream_timeout_unsafe_s)

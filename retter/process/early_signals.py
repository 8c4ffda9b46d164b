"""Signals that come before anybody handles them: kept back, not deadly.

By default, SIGHUP and SIGUSR2 kill. A start takes half a second, most of it imports. So these two
are blocked from its first moment on, and the kernel keeps one of each until the handlers are set.
Processes that are started meanwhile would inherit that; there are none.
"""

import signal
from typing import Final

_HELD: Final = frozenset({signal.SIGHUP, signal.SIGUSR2})


def hold() -> None:
    """Keep the signals back; threads that are started later never get them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release() -> None:
    """Let the signals come, those that were kept back too: their handlers are set."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)

"""What commands print on standard output: all of it, or one line that says why not."""

import os
import sys
from contextlib import suppress
from errno import EBADF


class OutputLost(Exception):
    """Standard output takes nothing, for instance on a full disk. The message is one line."""


def put(text: str) -> None:
    """Write a text to standard output. If its reader has left, the rest is dropped.

    Raises:
        OutputLost: It cannot be written.
    """
    with suppress(BrokenPipeError):
        write(text, flush=True)


def write(text: str = "", *, flush: bool = False) -> None:
    """Write a part of a text to standard output. The last part is to be flushed.

    Raises:
        OutputLost: It cannot be written.
        BrokenPipeError: Its reader has left.
    """
    if sys.stdout is None:
        raise OutputLost(f"standard output: {os.strerror(EBADF)}")
    try:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()
    except OSError as error:
        _write_no_more()
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputLost(f"standard output: {error.strerror}") from None


def _write_no_more() -> None:
    """Drop what is left: the interpreter would report at its end that it cannot be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

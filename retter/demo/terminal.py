"""Common parts of the demonstration's commands: addresses, event loop, terminal lines."""

import argparse
import asyncio
import resource
import signal
from collections.abc import Callable, Coroutine
from math import nan
from typing import Any, Final, NoReturn

from retter.config.likeness import hint
from retter.config.output import put

LISTEN: Final = "127.0.0.1:8090"
CONTROL: Final = "127.0.0.1:8091"


class Parser(argparse.ArgumentParser):
    """Complains in one line, and not with all that could be given."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(f"{message.removeprefix('argument ')}{hint(self, message)}")

    def print_help(self, file: Any = None) -> None:
        """Print how the command is used. Raises OutputLost."""
        put(self.format_help())


def number(low: float, high: float) -> Callable[[str], float]:
    """Return what reads a number of an option. It raises ArgumentTypeError."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number from {low:,g} to {high:,.0f}"
            )
        return value

    return read


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return what reads a whole number of an option. It raises ArgumentTypeError."""

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {low:,} to {high:,}"
            )
        return value

    return read


def address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT or :PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a coroutine on uvloop if it is installed, else on asyncio's own loop."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def say(text: str) -> None:
    """Print a line and flush it: a reader of the pipe may wait for it. Raises OutputLost."""
    put(text + "\n")


def raise_file_limit() -> None:
    """Raise the limit of open files as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def stopped() -> asyncio.Event:
    """Return an event that SIGINT or SIGTERM sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop

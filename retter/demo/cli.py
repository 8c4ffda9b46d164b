"""`retter demo`: run the shop, alone or behind RETTER, until Ctrl-C."""

import argparse
import asyncio
import contextlib
import random
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from retter.demo.database import Database
from retter.demo.knobs import Knobs, Model
from retter.demo.server import Clock, ShopServer
from retter.demo.shop import Shop

LISTEN: Final = "127.0.0.1:8090"
CONTROL: Final = "127.0.0.1:8091"


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = argparse.ArgumentParser(
        prog="retter demo",
        description="A small shop with a finite database, to see RETTER work.",
    )
    add = options.add_argument
    add("--listen", metavar="HOST:PORT", help=f"where the shop listens (default {LISTEN}; "
        "port 0 chooses a free port; the first printed line says which)")  # fmt: skip
    add("--control", metavar="HOST:PORT", help="also serve the knobs and figures here, "
        "where they can be reached while the shop is dead")  # fmt: skip
    add("--with-proxy", metavar="[HOST]:PORT", help="start RETTER here, in front of the shop, "
        "each in its own process")  # fmt: skip
    knobs = options.add_argument_group("initial knobs (change them later at /knobs)")
    knob = knobs.add_argument
    knob("--connections", help="database connections (default 8)")
    knob("--service-ms", metavar="MS", help="mean milliseconds of a query (default 20)")
    knob(
        "--model",
        choices=[str(model) for model in Model],
        help="distribution of query times (default fixed)",
    )
    knob("--backlog", metavar="N", help="pages that may wait for a connection; more get an error "
         "(default: no limit)")  # fmt: skip
    knob("--overflow-status", metavar="STATUS", help="status of that error: 503 (default) or 500")
    knob("--seed", type=int, help="make the random service times repeatable")
    return options


def address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT or :PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run it on uvloop where that is installed, else on asyncio's own loop."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def say(text: str) -> None:
    """Print a line at once, also into a pipe; somebody may wait for it."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def raise_file_limit() -> None:
    """Allow as many open connections as the system lets us."""
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


async def serve(options: argparse.Namespace, knobs: Knobs) -> int:
    """Run the shop until a signal comes. Returns the exit code."""
    stop = stopped()
    clock = Clock()
    later = asyncio.get_running_loop().call_later
    database = Database(knobs, later=later, random=random.Random(options.seed))
    server = ShopServer(Shop(database, now_ms=clock.now_ms), clock)
    wanted = options.listen or LISTEN
    try:
        host, port = address(wanted)
        port = await server.start(host, port)
        say(f"demo listening on http://{host}:{port}")
        if options.control:
            wanted = options.control
            host, port = address(wanted)
            say(f"knobs at http://{host}:{await server.start_control(host, port)}/knobs")
    except OSError as error:
        sys.stderr.write(f"retter demo: cannot listen on {wanted}: {error.strerror or error}\n")
        await server.stop()
        return 1
    await stop.wait()
    await server.stop()
    return 0


def main(argv: list[str]) -> int:
    """Run `retter demo` with these arguments and return the exit code."""
    options = parser().parse_args(argv)
    wishes = {
        name: value
        for name in ("connections", "service_ms", "model", "backlog", "overflow_status")
        if (value := getattr(options, name)) is not None
    }
    try:
        knobs = Knobs().changed(wishes)
        for text in (options.listen, options.control, options.with_proxy):
            if text is not None:
                address(text)
    except ValueError as error:
        sys.stderr.write(f"retter demo: {error}\n")
        return 2
    raise_file_limit()
    if options.with_proxy is None:
        return run(lambda: serve(options, knobs))
    from retter.demo.together import run_together

    return run(lambda: run_together(options, wishes))

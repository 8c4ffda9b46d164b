"""`retter demo`: run the shop, alone or behind RETTER, until Ctrl-C."""

import argparse
import asyncio
import random
import sys

from retter.demo.database import Database
from retter.demo.knobs import Knobs, Model
from retter.demo.server import Clock, ShopServer
from retter.demo.shop import Shop
from retter.demo.terminal import LISTEN, Parser, address, raise_file_limit, run, say, stopped


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = Parser(
        prog="retter demo",
        allow_abbrev=False,
        description="A small shop with a finite database, to see RETTER work.",
    )
    add = options.add_argument
    add(
        "--listen",
        metavar="HOST:PORT",
        help=f"address of the shop (default {LISTEN}; "
        "port 0 chooses a free port, which the first printed line shows)",
    )
    add(
        "--control",
        metavar="HOST:PORT",
        help="also serve the knobs and figures here, so that they work while the shop is dead",
    )
    add(
        "--with-proxy",
        metavar="[HOST]:PORT",
        help="start RETTER here, in front of the shop, each in its own process",
    )
    add(
        "--store",
        metavar="FOLDER",
        help="with --with-proxy: RETTER keeps what is stored in this folder, so that it outlives a "
        "restart",
    )
    knobs = options.add_argument_group("initial knobs (change them later at /knobs)")
    knob = knobs.add_argument
    knob("--connections", help="database connections (default 8)")
    knob("--service-ms", metavar="MS", help="mean milliseconds of a query (default 20)")
    knob(
        "--model",
        choices=[str(model) for model in Model],
        help="distribution of query times (default fixed)",
    )
    knob(
        "--backlog",
        metavar="N",
        help="pages that may wait for a connection; more get an error (default: no limit)",
    )
    knob("--overflow-status", metavar="STATUS", help="status of that error: 503 (default) or 500")
    knob("--seed", type=int, help="make the random service times repeatable")
    return options


async def serve(options: argparse.Namespace, knobs: Knobs) -> int:
    """Run the shop until a signal arrives. Returns the exit code."""
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
    try:
        options = parser().parse_args(argv)
    except ValueError as error:
        sys.stderr.write(f"retter demo: {error}\n")
        return 2
    wishes = {
        name: value
        for name in ("connections", "service_ms", "model", "backlog", "overflow_status")
        if (value := getattr(options, name)) is not None
    }
    try:
        knobs = Knobs().changed(wishes)
    except ValueError as error:
        knob, _, why = str(error).partition(": ")
        sys.stderr.write(f"retter demo: --{knob.replace('_', '-')}: {why}\n")
        return 2
    for option in ("listen", "control", "with_proxy"):
        try:
            address(getattr(options, option) or LISTEN)
        except ValueError as error:
            sys.stderr.write(f"retter demo: --{option.replace('_', '-')}: {error}\n")
            return 2
    raise_file_limit()
    if options.with_proxy is None:
        return run(lambda: serve(options, knobs))
    from retter.demo.together import run_together

    return run(lambda: run_together(options, wishes))

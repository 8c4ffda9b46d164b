"""`retter demo --with-proxy`: the shop and RETTER, each in its own process, under one Ctrl-C.

The children run in sessions of their own, so that a Ctrl-C at the terminal reaches only this
process. It passes the signal on, once, and waits until both have ended.
"""

import argparse
import asyncio
import contextlib
import errno
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from typing import Any, Final

from retter.demo.terminal import CONTROL, LISTEN, address, say
from retter.net.supervision import start_task

ADMIN: Final = "127.0.0.1:9090"  # the default address of `retter status` and other commands
START_S: Final = 15.0  # a small machine may need seconds to start Python twice
STOP_S: Final = 20.0  # RETTER finishes running requests for up to 15 s (its --drain)

WELCOME: Final = """
  The shop, through RETTER   {proxy}
  RETTER's dashboard         {admin}
  Its knobs and figures      {knobs}
  The shop without RETTER    {shop}

  {connections} database connections at {service_ms} ms a page: {capacity} pages a second.

  Try this:
   1. Open the shop and click around. The footer says when a page was made.
   2. In a second terminal, ask for five times what it can do:

          {load}

      The shop works at full capacity, everybody else gets the last good page
      within milliseconds, and no POST is lost. See it on the dashboard, or in
      {top}
   3. Turn the shop slow, failing, hung or dead at its knobs, and click on.
   4. See the difference: send the same load to the shop without RETTER, at
      {shop}
{reboot}
  Ctrl-C ends both.
"""

REBOOT: Final = """
   5. See what visitors get after a reboot, before the shop runs: end both and
      start RETTER alone. The pages that were opened before are still there.
      Any other page says that the site is being restarted, and loads itself
      again until the shop runs.

          {alone}
"""


class StartFailed(Exception):
    """A child has not started; the text is for the user."""


async def run_together(options: argparse.Namespace, wishes: Mapping[str, str]) -> int:
    """Run both until a signal arrives or one of them ends. Returns the exit code."""
    signals = _signals()
    children: list[Process] = []
    try:
        shop, control = await _start_shop(options, wishes, children)
        admin = _usual_or_free(ADMIN, choose=True)
        proxy = await _start_proxy(options, shop, admin, children)
        said = {"proxy": proxy, "admin": f"http://{admin}", "shop": shop, "control": control}
        say(_welcome(wishes, store=options.store or "", **said))
        return await _until_end(children, signals)
    except StartFailed as error:
        sys.stderr.write(f"retter demo: {error}\n")
        return 1
    finally:
        await _stop(children, signals)


def _signals() -> "asyncio.Queue[int]":
    received: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, received.put_nowait, number)
    return received


async def _start_shop(
    options: argparse.Namespace, wishes: Mapping[str, str], children: list[Process]
) -> tuple[str, str]:
    """Start the shop; return its URL and the URL of its knobs."""
    listen = options.listen or _usual_or_free(LISTEN)
    control = options.control or _usual_or_free(CONTROL)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in wishes.items()]
    if options.seed is not None:
        flags.append(f"--seed={options.seed}")
    shop = await _spawn("retter.demo", "--listen", listen, "--control", control, *flags, piped=True)
    children.append(shop)
    lines = [await _line(shop) for _ in range(2)]
    return lines[0].rpartition(" ")[2], lines[1].rpartition(" ")[2]


async def _start_proxy(
    options: argparse.Namespace, shop: str, admin: str, children: list[Process]
) -> str:
    """Start RETTER in front of the shop; return its URL once it accepts connections."""
    # A port alone is this machine's: a demonstration is nobody else's.
    host, port = address(options.with_proxy)
    listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if port == 0:
        listen = f"{host}:{_free_port(host)}"
    elif _is_taken(host, port):  # its listener would be mistaken for RETTER's
        raise StartFailed(
            f"another program listens on {listen}; choose another port: make run LISTEN=:9089, or "
            "retter demo --with-proxy :9089"
        )
    upstream = shop.removeprefix("http://")
    store = ("--store", options.store) if options.store else ()
    proxy = await _spawn(
        "retter", "--listen", listen, "--upstream", upstream, "--admin", admin, *store
    )
    children.append(proxy)
    host, port = address(listen)
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "*") else host
    await _accepting(proxy, host, port)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _spawn(module: str, *arguments: str, piped: bool = False) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdout=PIPE if piped else None,
        start_new_session=True,  # process_group=0 would be enough, but uvloop does not have it
    )


async def _line(child: Process) -> str:
    assert child.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = (await child.stdout.readline()).decode().strip()
    except TimeoutError:
        raise StartFailed("the shop did not start within its time limit") from None
    if not line:
        raise StartFailed("the shop did not start")  # it has said why
    return line


async def _accepting(child: Process, host: str, port: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while child.returncode is None:
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return
    if child.returncode is None:
        raise StartFailed(f"RETTER does not accept connections at {host}:{port}")
    raise StartFailed("RETTER did not start")  # it has said why


async def _until_end(children: list[Process], signals: "asyncio.Queue[int]") -> int:
    loop = asyncio.get_running_loop()
    signalled = start_task(loop, signals.get(), "waiting for a signal")
    ends = [start_task(loop, child.wait(), "waiting for a child") for child in children]
    done, rest = await asyncio.wait([signalled, *ends], return_when=asyncio.FIRST_COMPLETED)
    for future in rest:
        future.cancel()
    if signalled in done:
        return 0
    sys.stderr.write("retter demo: one of the two has ended; ending the other\n")
    return 1


async def _stop(children: list[Process], signals: "asyncio.Queue[int]") -> None:
    """Stop the children, RETTER first: it may still need the shop for running requests."""
    for child in reversed(children):
        await _stop_one(child, signals)


async def _stop_one(child: Process, signals: "asyncio.Queue[int]") -> None:
    _send(child, signal.SIGTERM)
    loop = asyncio.get_running_loop()
    end = start_task(loop, child.wait(), "waiting for a child")
    again = start_task(loop, signals.get(), "waiting for a signal")
    await asyncio.wait([end, again], timeout=STOP_S, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not end.done():  # a second Ctrl-C, or it takes too long
        _send(child, signal.SIGKILL)
    await end


def _send(child: Process, number: int) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)


def _usual_or_free(usual: str, *, choose: bool = False) -> str:
    """Return the usual address, or one with a free port if another program listens there.

    The free port is 0, if the child prints its port; with `choose` it is a number.
    """
    host, port = address(usual)
    if not _is_taken(host, port):
        return usual
    return f"{host}:{_free_port(host) if choose else 0}"


def _is_taken(host: str, port: int) -> bool:
    """Return whether a program listens there. The child reports all other errors itself."""
    try:
        with socket.create_server((host, port), family=_family(host)):
            return False
    except OSError as error:
        return error.errno == errno.EADDRINUSE


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def _welcome(
    wishes: Mapping[str, Any], *, proxy: str, admin: str, shop: str, control: str, store: str
) -> str:
    from retter.demo.database import capacity_rps
    from retter.demo.knobs import Knobs

    knobs = Knobs().changed(wishes)
    rate = round(5 * capacity_rps(knobs), -1)
    listen, upstream = (url.removeprefix("http://") for url in (proxy, shop))
    alone = f"{_retter()} --listen {listen} --upstream {upstream} --store {store}"
    return WELCOME.format(
        proxy=proxy,
        admin=admin,
        shop=shop,
        knobs=control,
        connections=knobs.connections,
        service_ms=f"{knobs.service_ms:g}",
        capacity=f"{capacity_rps(knobs):.0f}",
        load=f"{_retter()} load {proxy} --rate {rate:.0f}",
        reboot=REBOOT.format(alone=alone) if store else "",
        top=f"{_retter()} top" + ("" if admin.endswith(ADMIN) else f" --admin {admin[7:]}"),
    )


def _retter() -> str:
    """Return the command that starts this program: its name if it is on the path, or a path."""
    from pathlib import Path
    from shutil import which

    here = Path(sys.executable).parent / "retter"
    if which("retter") == str(here):
        return "retter"
    if here.exists():
        with contextlib.suppress(ValueError):
            return str(here.relative_to(Path.cwd()))
        return str(here)
    return f"{sys.executable} -m retter"

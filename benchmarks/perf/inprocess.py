"""A whole RETTER without sockets: what a request costs where no kernel and no loop take part.

`python -m benchmarks.perf.inprocess` prints, for each kind of heads, the processor's instructions
for each request (callgrind of valgrind), or with `--time` the CPU time, which needs no valgrind.
Instructions are the same in every run, so they show a gain of a hundredth on a busy machine, too.

The instructions of the interpreter alone are counted by tests/proxy/test_forwarding_cost.py.
"""

import argparse
import asyncio
import ctypes
import gc
import mmap
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.perf import visitors
from benchmarks.perf.pages import page
from benchmarks.perf.scenarios import (
    SCENARIOS,
    Heads,
    Mode,
    Scenario,
    request_bytes,
    warming_requests,
)
from retter.breaker import Mode as CircuitMode
from retter.config.settings import Settings
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.pool import ConnectionPool, Dialler
from retter.proxy.proxy import Proxy
from retter.proxy.secrets import Secrets
from retter.proxy.ticker import TICK_S

CONNECTIONS: Final = 64  # used in turns, so that what one request touched is cold at the next
WARMING: Final = 3000  # requests before the first one that is counted
COUNTED: Final = 1000
TICK_REQUESTS: Final = 500  # between two ticks: 10,000 requests a second
NAMES: Final = (
    "forward-64", "forward-64-mix", "forward-64-unseen",
    "store-64", "store-64-mix", "store-64-unseen",
)  # fmt: skip
FULL: Final = "-full"  # after a name: each new response evicts an old one
FULL_BYTES: Final = 4 * 1024 * 1024


class _Loop:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        """Return the time in seconds."""
        return self.now

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call it at once."""
        callback(*arguments)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Let a fault end the measurement."""
        raise context["exception"]


class _Transport(asyncio.Transport):
    """Keeps what was written last."""

    def __init__(self, protocol: Any) -> None:
        super().__init__({"peername": ("192.0.2.7", 50000)})
        self.protocol = protocol
        self.written = b""
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written = bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _Pool(ConnectionPool):
    """Has its connections from the beginning."""

    made: list[_Transport]

    def _dial_soon(self, exchange: Dialler) -> None:
        connection = self._make_connection(self)
        self._connections.add(connection)
        self.made.append(_Transport(connection))
        self._hand_over(connection, exchange)


class Bench:
    """A proxy with its clients and an application that answers at once.

    Args:
        scenario: Says which heads are sent, and whether the application is asked.
        full: The store is full, so that a new response evicts an old one.
    """

    def __init__(self, scenario: Scenario, *, full: bool = False) -> None:
        self.loop = _Loop()
        loop: Any = self.loop
        forwards = scenario.mode is Mode.FORWARD
        settings = Settings(
            upstream="127.0.0.1:8080",
            circuit="observe" if forwards else "auto",
            compress=(),
        )
        if full:
            settings = replace(settings, store_memory_bytes=FULL_BYTES)
        secret = bytes(range(32))  # always the same
        self.proxy = Proxy(
            settings, loop, None, _Pool, loop.time, None, Secrets(secret, secret, secret)
        )
        pool: Any = self.proxy.services.pool
        self.upstreams: list[_Transport] = []
        pool.made = self.upstreams
        self.clients = [
            _Transport(DownstreamConnection(self.proxy.services)) for _ in range(CONNECTIONS)
        ]
        body = page(scenario.page)
        self._answer = (
            b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 01 Dec 2026 10:00:00 GMT\r\n"
            b"Content-Type: text/html\r\nContent-Length: %d\r\nLast-Modified: Mon, 30 Nov 2026 "
            b'10:00:00 GMT\r\nConnection: keep-alive\r\nETag: "674ae000-400"\r\n'
            b"Accept-Ranges: bytes\r\n\r\n%b" % (len(body), body)
        )
        self._scenario = scenario
        self._number = 0
        if not forwards:
            for request in warming_requests(scenario):
                self.forward([request])
            circuit = self.proxy.services.breaker.circuit
            circuit.set_mode(self.loop.now, CircuitMode.OPEN)
        self.send = self.forward if forwards else self.ask

    def heads(self, count: int) -> list[bytes]:
        """Return the next requests."""
        scenario, first = self._scenario, self._number
        self._number += count
        if scenario.heads is not Heads.MIXED:
            return [request_bytes(scenario, number) for number in range(first, first + count)]
        forwards = scenario.mode is Mode.FORWARD
        kinds = visitors.heads(sessions=forwards)
        pages = visitors.samples(visitors.PAGES if forwards else visitors.STORED_PAGES)
        chance = random.Random(first)
        found: list[bytes] = []
        for _ in range(count):
            visitor = chance.randrange(visitors.VISITORS)
            asked, before = [visitors.page_path(scenario.page, chance.choice(pages)) for _ in "ab"]
            kind = kinds[visitor % len(kinds)]
            found.append(visitors.filled(kind, asked, before, visitor))
        return found

    def forward(self, requests: Sequence[bytes]) -> None:
        """Send requests that the application answers."""
        clients, upstreams, answer, loop = self.clients, self.upstreams, self._answer, self.loop
        for number, request in enumerate(requests):
            loop.now += TICK_S / TICK_REQUESTS
            clients[number % CONNECTIONS].protocol.data_received(request)
            upstreams[-1].protocol.data_received(answer)

    def ask(self, requests: Sequence[bytes]) -> None:
        """Send requests that are answered from the store."""
        clients, loop = self.clients, self.loop
        for number, request in enumerate(requests):
            loop.now += TICK_S / TICK_REQUESTS
            clients[number % CONNECTIONS].protocol.data_received(request)

    def tick(self) -> None:
        """Do what happens from time to time."""
        self.proxy.ticker.tick(self.loop.now)

    def warm(self) -> None:
        """Send requests until all is known that will be, and check that they are answered."""
        for _ in range(WARMING // TICK_REQUESTS):
            self.send(self.heads(TICK_REQUESTS))
            self.tick()
        if any(not client.written.startswith(b"HTTP/1.1 200 ") for client in self.clients):
            raise SystemExit(f"not answered: {self.clients[0].written[:300]!r}")
        self._check()

    def _check(self) -> None:
        answers, source = self.clients[0].written, b"\r\nCache-Status: retter; hit"
        if (source in answers) is not (self._scenario.mode is Mode.STORE):
            raise SystemExit(f"answered by the wrong side: {answers[:400]!r}")


def made(name: str) -> Bench:
    """Return the bench of a scenario, warm."""
    scenario = {one.name: one for one in SCENARIOS}[name.removesuffix(FULL)]
    bench = Bench(scenario, full=name.endswith(FULL))
    bench.warm()
    return bench


def cpu_us(bench: Bench, rounds: int) -> float:
    """Return the CPU time of a request: the least of several rounds, in microseconds."""
    least = float("inf")
    for _ in range(rounds):
        requests = bench.heads(TICK_REQUESTS)
        gc.collect()
        began = time.thread_time()
        bench.send(requests)
        least = min(least, time.thread_time() - began)
        bench.tick()
    return least * 1e6 / TICK_REQUESTS


# -- instructions ------------------------------------------------------------------------------


# A client request of valgrind (its manual, section 3.1) in machine code of x86-64: rotations of rdi
# that do nothing, and `xchg rbx, rbx`; the request is where rax points to. Without valgrind it is
# nothing, too.
_REQUEST: Final = bytes.fromhex("4889f831d248c1c70348c1c70d48c1c73d48c1c7334887db4889d0c3")
_START, _STOP = 0x43540004, 0x43540005  # callgrind's instrumentation


def _asks_valgrind() -> Callable[[int], None]:
    """Return a function that sends a request to valgrind."""
    memory = mmap.mmap(-1, len(_REQUEST), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(_REQUEST)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(address)

    def ask(request: int, _: object = memory) -> None:
        asked = (ctypes.c_size_t * 6)(request)
        function(ctypes.addressof(asked))

    return ask


def count_inside(name: str) -> None:
    """Send the requests that are counted; in the process that valgrind runs."""
    bench = made(name)
    requests = bench.heads(COUNTED)
    gc.collect()
    gc.disable()
    ask = _asks_valgrind()
    ask(_START)
    bench.send(requests)
    ask(_STOP)


def instructions(name: str, keep: Path | None = None) -> float:
    """Return the processor's instructions a request.

    Args:
        keep: Where callgrind's file goes, for callgrind_annotate.
    """
    with tempfile.TemporaryDirectory(prefix="retter-counted-") as folder:
        file = keep or Path(folder, "callgrind.out")
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={file}",
             sys.executable, "-m", "benchmarks.perf.inprocess", "--count", name],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or not found:
            raise SystemExit(f"valgrind: {done.stderr[-800:]}")
    return int(found[1]) / COUNTED


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.perf.inprocess", description=__doc__
    )
    parser.add_argument("names", nargs="*", help=f"scenarios; {FULL} after one: with a full store")
    parser.add_argument("--time", action="store_true", help="CPU time in place of instructions")
    parser.add_argument("--rounds", type=int, default=40, help="of CPU time (default 40)")
    parser.add_argument("--keep", type=Path, help="where callgrind's file of the last one goes")
    parser.add_argument("--count", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        count_inside(given.count)
        return
    for name in given.names or NAMES:
        if given.time:
            print(f"{name:<26} {cpu_us(made(name), given.rounds):8.2f} us", flush=True)
        else:
            print(f"{name:<26} {instructions(name, given.keep):10,.0f}", flush=True)


if __name__ == "__main__":
    main()

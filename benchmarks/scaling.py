"""The throughput of several workers: `make scaling`, on a quiet machine with wrk.

Stored responses are served with the application gone, and wrk asks as fast as it can: first one
worker, then several, then as many RETTERs that share nothing, each on a port of its own. The last
are what this machine can do at all. Three figures come of it:

- The rates, as measured. They say something only if there are more cores than workers, because wrk
  needs one too.
- What sharing costs: the CPU time of a request with several workers, by that of one.
- What the workers would carry with a core for each: their number, by what sharing costs, less what
  the kernel spreads unevenly. That is the bar.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

from retter.process.descriptors import raise_descriptor_limit

BAR: Final = 1.8  # of two workers, by one
# Of all visitors together. The kernel spreads them by chance: of 256, one of two workers gets 6 %
# more than its half, of 2,048 it gets 2 % more.
CONNECTIONS: Final = 2048
BODY: Final = b"x" * 5000
START_S: Final = 30.0
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Page(BaseHTTPRequestHandler):
    """The application: one page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def retter(port: int, upstream: int, folder: Path, *words: str) -> Generator[int, None, None]:
    """Run RETTER with this store; yield its process id."""
    command = [
        sys.executable, "-m", "retter", "--listen", f"127.0.0.1:{port}", "--admin", "off",
        "--upstream", f"127.0.0.1:{upstream}", "--store", str(folder), "--log-level", "error",
        *words,
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + START_S
        while not _listens(port):
            if time.monotonic() > until or process.poll() is not None:
                raise SystemExit("RETTER does not start")
            time.sleep(0.05)
        time.sleep(0.5)  # the other workers
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def fetch(port: int) -> bytes:
    """Fetch the page."""
    with socket.create_connection(("127.0.0.1", port), timeout=START_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = b""
        while data := client.recv(65536):
            found += data
    return found


def fill(folder: Path) -> None:
    """Store the page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = free_port()
        with retter(port, server.server_port, folder):
            fetch(port)
        server.shutdown()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def spread(ports: Sequence[int], serving: Sequence[int], connections: int) -> list[int]:
    """Open so many connections, one after the other; return how many each process has got.

    Under load this would say something else: on a machine that is full, some wait to be accepted.
    """
    idle = [descriptors(one) for one in serving]
    with ExitStack() as stack:
        for number in range(connections):
            address = "127.0.0.1", ports[number % len(ports)]
            stack.enter_context(socket.create_connection(address, timeout=START_S))
        held, before = _more(serving, idle), list[int]()
        while held != before:  # until all are accepted; a busy worker takes a while
            time.sleep(0.5)
            held, before = _more(serving, idle), held
    return held


def _more(serving: Sequence[int], idle: Sequence[int]) -> list[int]:
    return [descriptors(one) - was for one, was in zip(serving, idle, strict=True)]


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass(frozen=True, slots=True)
class Window:
    """One measured window."""

    requests: int
    seconds: float
    cpu_s: list[float]  # of each process that serves
    connections: list[int]  # of each process

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return self.requests / self.seconds

    @property
    def us(self) -> float:
        """CPU microseconds of a request, in all processes."""
        return sum(self.cpu_s) / self.requests * 1e6

    @property
    def balance(self) -> float:
        """How evenly the kernel has spread the connections: 1 if each process has as many.

        The CPU time of each would not tell that: on a machine that is full, whoever gets less of it
        does less.
        """
        return sum(self.connections) / len(self.connections) / max(self.connections)


def measure(
    stores: Sequence[Path], workers: int, clients: int, connections: int, seconds: int
) -> Window:
    """Ask for the stored page: a RETTER for each of these stores, with so many workers each.

    Args:
        clients: Processes of wrk: always the same number, or else they would get another share of
            the cores.
        connections: Of all of them together.
    """
    words = ("--circuit", "open", "--workers", str(workers))
    ports = [free_port() for _ in stores]
    with ExitStack() as stack:
        serving: list[int] = []
        for port, store in zip(ports, stores, strict=True):
            pid = stack.enter_context(retter(port, free_port(), store, *words))
            if b" 200 " not in fetch(port)[:20]:
                raise SystemExit("the page is not stored")
            serving += children(pid) if workers > 1 else [pid]
        held = spread(ports, serving, connections)
        before = [cpu_s(one) for one in serving]
        asking = [
            subprocess.Popen(
                ["wrk", "-t", "1", "-c", str(connections // clients), "-d", f"{seconds}s",
                 "--timeout", "30s", "-H", "Host: localhost", f"http://127.0.0.1:{port}/"],
                stdout=subprocess.PIPE, text=True,
            )
            for port in (ports if len(ports) > 1 else ports * clients)
        ]  # fmt: skip
        said = [one.communicate(timeout=seconds + START_S)[0] for one in asking]
        after = [cpu_s(one) for one in serving]
    requests, took = 0, list[float]()
    for text in said:
        found = re.search(r"(\d+) requests in ([\d.]+)s", text)
        if found is None or "Non-2xx" in text:
            raise SystemExit(f"wrk: {text}")
        requests += int(found[1])
        took.append(float(found[2]))
    used = [b - a for a, b in zip(before, after, strict=True)]
    return Window(requests, max(took), used, held)


def show(name: str, window: Window) -> None:
    """Print a row of the table."""
    print(f"| {name} | {window.rate:,.0f} | {window.us:.1f} | {window.balance:.2f} |", flush=True)


@dataclass(frozen=True, slots=True)
class Ratios:
    """Several processes by one, in each round."""

    rates: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])  # of a request
    carried: list[float] = field(default_factory=list[float])  # with a core for each

    def add(self, one: Window, several: Window) -> None:
        """Add a round."""
        self.rates.append(several.rate / one.rate)
        self.cpu.append(several.us / one.us)
        self.carried.append(len(several.cpu_s) * one.us / several.us * several.balance)


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return sorted(values)[len(values) // 2]


def main() -> int:
    """Measure, and say whether the bar is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=5, help="of each window (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each (default 3)")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian's package wrk brings it)")
    raise_descriptor_limit()  # wrk inherits it
    cores, workers, seconds = len(os.sched_getaffinity(0)), options.workers, options.seconds
    shared, alone = Ratios(), Ratios()
    with tempfile.TemporaryDirectory() as name:
        stores = [Path(name) / str(number) for number in range(workers)]
        fill(stores[0])
        for other in stores[1:]:
            shutil.copytree(stores[0], other)
        print("|  | requests/s | CPU us a request | balance |")
        print("| --- | ---: | ---: | ---: |")
        for _ in range(options.rounds):
            one = measure(stores[:1], 1, workers, options.connections, seconds)
            show("one worker", one)
            several = measure(stores[:1], workers, workers, options.connections, seconds)
            show(f"{workers} workers", several)
            apart = measure(stores, 1, workers, options.connections, seconds)
            show(f"{workers} that share nothing", apart)
            shared.add(one, several)
            alone.add(one, apart)
    carries, ceiling = middle(shared.carried), middle(alone.carried)
    bar = BAR / 2 * workers
    print(f"\nby those of one worker, medians of {options.rounds} rounds:\n")
    print("|  | rate | CPU of a request | with a core for each |")
    print("| --- | ---: | ---: | ---: |")
    for name, ratios in ((f"{workers} workers", shared), (f"{workers} that share nothing", alone)):
        carried = f"{middle(ratios.cpu):.2f} | {middle(ratios.carried):.2f}"
        print(f"| {name} | {middle(ratios.rates):.2f} | {carried} |")
    print(
        f"\n{cores} cores, wrk included. With a core for each, the bar is {bar:.2f}; "
        f"the machine itself carries {ceiling:.2f}."
    )
    return 0 if carries >= bar else 1


if __name__ == "__main__":
    sys.exit(main())

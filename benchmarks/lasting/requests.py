"""The cost of requests with a store on disk, in CPU time of RETTER's process, over sockets.

CPU time and not wall time: other programs may use the machine meanwhile. All threads count, that of
the writer too.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean, median
from typing import Final, NamedTuple

HOST: Final = b"shop.example"
CONNECTIONS: Final = 8  # that have a request under way at a time
PAGE_BYTES: Final = 12 * 1024
ROUNDS: Final = 5
PROCESSES: Final = 5  # pairs that are compared: memory layout makes equal ones differ by hundredths


class Running(NamedTuple):
    """A RETTER that runs, and where."""

    pid: int
    port: int
    admin: str

    def cpu_s(self) -> float:
        """Return the CPU time of all its threads, in seconds."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory_mb(self) -> float:
        """Return its anonymous memory, in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) / 1024


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def retter(upstream: int, *options: str) -> Generator[Running, None, None]:
    """Run a RETTER until the block is left; it may not listen yet."""
    port, admin = free_port(), f"127.0.0.1:{free_port()}"
    command = [
        sys.executable, "-m", "retter", "--listen", f"127.0.0.1:{port}", "--upstream",
        f"127.0.0.1:{upstream}", "--admin", admin, "--log-level", "error", "--connect-hold", "0s",
        *options,
    ]  # fmt: skip
    with subprocess.Popen(command) as child:
        try:
            yield Running(child.pid, port, admin)
        finally:
            child.terminate()


@contextmanager
def application() -> Generator[int, None, None]:
    """Run an application; yield its port."""
    command = [sys.executable, "-m", "benchmarks.lasting.requests"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline())
        finally:
            child.terminate()


class Client:
    """Some connections to one RETTER, each with one request under way."""

    def __init__(self, port: int) -> None:
        self._sockets = [
            socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(CONNECTIONS)
        ]

    def ask(self, paths: Sequence[bytes]) -> int:
        """Ask for all of them; return how many were answered with 200."""
        good = 0
        for at in range(0, len(paths), CONNECTIONS):
            some = list(zip(self._sockets, paths[at : at + CONNECTIONS], strict=False))
            for one, path in some:
                one.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, HOST))
            good += sum([self._answer(one) for one, _ in some])
        return good

    @staticmethod
    def _answer(one: socket.socket) -> bool:
        data = one.recv(65536)
        while b"\r\n\r\n" not in data:
            data += _more(one)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        have = len(body)
        while have < length:
            have += len(_more(one))
        return head.startswith(b"HTTP/1.1 200")

    def close(self) -> None:
        """Close all of them."""
        for one in self._sockets:
            one.close()


def _more(one: socket.socket) -> bytes:
    data = one.recv(65536)
    assert data, "closed in the middle of an answer"
    return data


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < until, "it does not start"
            time.sleep(0.005)
        else:
            return


def costs_us(
    all_running: dict[str, Running],
    asked: dict[str, list[bytes]],
    rounds: int = ROUNDS,
) -> dict[str, list[float]]:
    """Return CPU microseconds of a request for each, of each round.

    They take turns, since other programs use the machine, and batches are written in some rounds.
    """
    clients = {name: Client(running.port) for name, running in all_running.items()}
    found: dict[str, list[float]] = {name: [] for name in all_running}
    try:
        for _ in range(rounds):
            for name, running in all_running.items():
                paths = asked[name]
                begun = running.cpu_s()
                good = clients[name].ask(paths)
                assert good == len(paths), f"{name}: {good} of {len(paths)} were good"
                found[name].append((running.cpu_s() - begun) / len(paths) * 1e6)
    finally:
        for client in clients.values():
            client.close()
    return found


def answered(folder: str, count: int) -> dict[str, float]:
    """Return what a stored answer costs: in memory without and with a disk behind it.

    "asked again" is a page of the disk that is asked for a second time: it is in memory then.
    "first" is one that is read from the disk's pages in memory, with a store so small that each
    comes from there.
    """
    paths = [b"/page/%d" % number for number in range(min(count, 2000))]
    options = {
        "no disk": ("--store-memory", "64MiB"),
        "asked again": ("--store", folder, "--store-memory", "64MiB"),
        "first": ("--store", f"{folder}.copy", "--store-memory", "2MiB"),
    }
    asked = dict.fromkeys(options, paths)
    asked["no disk"] = [b"/new" + path for path in paths]  # of the application, as large
    with ExitStack() as stack:
        port = stack.enter_context(application())
        found: dict[str, Running] = {}
        for name, more in options.items():
            found[name] = stack.enter_context(retter(port, "--store-disk", "2GiB", *more))
            wait_for(found[name].port)
            if name == "no disk":
                Client(found[name].port).ask(asked[name])
            hold_open(found[name])
            for _ in range(3):  # what is asked for once has a tenth of the memory
                Client(found[name].port).ask(asked[name])
        each = costs_us(found, asked, 6 * ROUNDS)
        return {name: clean(rounds) for name, rounds in each.items()}


def clean(rounds: list[float]) -> float:
    """Return the median of the fastest quarter: what other programs do to the rest is not ours."""
    return median(sorted(rounds)[: max(1, len(rounds) // 4)])


def hold_open(running: Running) -> None:
    """Have everything answered from the store."""
    command = [sys.executable, "-m", "retter", "circuit", "open", "--admin", running.admin]
    subprocess.run(command, check=True, capture_output=True)


def forwarded(base: str) -> dict[str, float]:
    """Return what a forwarded page costs: unchanged and new, without and with a disk."""
    found: dict[str, float] = {}
    for kind in ("same", "new"):
        pairs = [_forwarded(kind, os.path.join(base, f"{kind}-{n}")) for n in range(PROCESSES)]
        found |= {name: fmean([pair[name] for pair in pairs]) for name in pairs[0]}
    return found


def _forwarded(kind: str, folder: str) -> dict[str, float]:
    with ExitStack() as stack:
        port = stack.enter_context(application())
        running = {
            f"{kind}, no disk": stack.enter_context(retter(port)),
            f"{kind}, disk": stack.enter_context(
                retter(port, "--store-disk", "64MiB", "--store", folder)
            ),
        }
        paths = [b"/%b/%d" % (kind.encode(), number) for number in range(500)]
        for one in running.values():
            wait_for(one.port)
            Client(one.port).ask(paths)
        time.sleep(6)  # what is new has been written
        each = costs_us(running, dict.fromkeys(running, paths), 5 * ROUNDS)
        # What is new is written in few of the rounds, so their mean counts.
        typical = fmean if kind == "new" else clean
        return {name: typical(rounds) for name, rounds in each.items()}


# -- the application: pages that never change, and pages that are new each time


class Page(asyncio.Protocol):
    """One connection of the application."""

    count = 0
    same: Final = b"same" * (PAGE_BYTES // 4)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer; a request comes in one piece here."""
        assert isinstance(self._transport, asyncio.Transport)
        body = self.same
        if data.startswith(b"GET /new"):
            Page.count += 1
            body = (b"%012d" % Page.count) * (PAGE_BYTES // 12)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )


async def serve() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Page, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())

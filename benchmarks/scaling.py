"""The throughput of several workers: `make scaling`, on a quiet machine with wrk.

Stored responses are served by one worker and then by several, with the application gone, and wrk
asks as fast as it can. Two ratios come of it:

- The rates, as measured. They say something only if there are more cores than workers, because wrk
  needs one too.
- What the workers would carry with a core for each: so many times the CPU time of a request with
  one worker, by that with several, less what the kernel spreads unevenly. That is the bar.
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
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

BAR: Final = 1.8  # of two workers, by one
CONNECTIONS: Final = 256  # the kernel spreads many connections evenly, and few by chance
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
        """How evenly the processes were used: 1 if all did the same."""
        return sum(self.cpu_s) / len(self.cpu_s) / max(self.cpu_s)


def measure(folder: Path, workers: int, seconds: int, threads: int) -> Window:
    """Ask so many workers for the stored page."""
    port = free_port()
    words = ("--circuit", "open", "--workers", str(workers))
    with retter(port, free_port(), folder, *words) as pid:
        if b" 200 " not in fetch(port)[:20]:
            raise SystemExit("the page is not stored")
        serving = children(pid) if workers > 1 else [pid]
        before = [cpu_s(one) for one in serving]
        done = subprocess.run(
            ["wrk", "-t", str(threads), "-c", str(CONNECTIONS), "-d", f"{seconds}s",
             "-H", "Host: localhost", f"http://127.0.0.1:{port}/"],
            capture_output=True, text=True, check=True, timeout=seconds + START_S,
        )  # fmt: skip
        after = [cpu_s(one) for one in serving]
    found = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise SystemExit(f"wrk: {done.stdout}")
    used = [b - a for a, b in zip(before, after, strict=True)]
    return Window(int(found[1]), float(found[2]), used)


def main() -> int:
    """Measure, and say whether the bar is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=5, help="of each window (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each (default 3)")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian's package wrk brings it)")
    cores = len(os.sched_getaffinity(0))
    rates, carried = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        fill(folder)
        print("| workers | requests/s | CPU us a request | balance |")
        print("| ---: | ---: | ---: | ---: |")
        for _ in range(options.rounds):
            one = measure(folder, 1, options.seconds, 1)
            several = measure(folder, options.workers, options.seconds, 1)
            for workers, window in ((1, one), (options.workers, several)):
                print(
                    f"| {workers} | {window.rate:,.0f} | {window.us:.1f} | {window.balance:.2f} |",
                    flush=True,
                )
            rates.append(several.rate / one.rate)
            carried.append(options.workers * one.us / several.us * several.balance)
    carries, bar = sorted(carried)[len(carried) // 2], BAR / 2 * options.workers
    print(
        f"\nrates as measured on {cores} cores, wrk included: {sorted(rates)[len(rates) // 2]:.2f}"
    )
    print(f"with a core for each: {carries:.2f} times one worker; the bar is {bar:.1f}")
    return 0 if carries >= bar else 1


if __name__ == "__main__":
    sys.exit(main())

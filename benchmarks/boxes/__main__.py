"""The cost of boxes that share through a Redis: `python -m benchmarks.boxes`.

Pages are pieces of this project's own texts, 12 KB each, so that they compress as pages do. Counts
are exact; times are CPU time of RETTER's process, which a busy machine makes noisy.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from redis import Redis

PAGE_BYTES: Final = 12 * 1024
ROOT: Final = Path(__file__).parents[2]
TEXT: Final = b"".join([path.read_bytes() for path in sorted((ROOT / "docs").glob("*.md"))])


class Application(BaseHTTPRequestHandler):
    """Pages that are each another piece of text; below /new they change with each request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    served = itertools.count()

    def do_GET(self) -> None:
        at = hash(self.path) % (len(TEXT) - PAGE_BYTES)
        new = b"<!-- %d -->" % next(self.served) if self.path.startswith("/new") else b""
        body = new + TEXT[at : at + PAGE_BYTES]
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Box:
    """One RETTER."""

    def __init__(self, upstream: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "retter", "--listen", "127.0.0.1:0", "--upstream", upstream,
             "--admin", "127.0.0.1:0", "--log-format", "json", "--session-cookies", "PHPSESSID",
             *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stderr is not None
        line = next(one for one in self.process.stderr if '"serving"' in one)
        told = json.loads(line)
        self.port = int(told["listen"][0].rpartition(":")[2])
        self.admin = told["admin"]
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def anonymous_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError

    def state(self) -> dict[str, Any]:
        with urlopen(self.admin + "/api/state") as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Visitors:
    """One connection, many visitors."""

    def __init__(self, box: Box) -> None:
        self._socket = socket.create_connection(("127.0.0.1", box.port))
        self._file = self._socket.makefile("rb")

    def ask(self, target: str, cookie: str = "", body: bytes | None = None) -> None:
        fields = f"Cookie: PHPSESSID={cookie}\r\n" if cookie else ""
        if body is not None:
            fields += f"Content-Length: {len(body)}\r\n"
        method = "GET" if body is None else "POST"
        head = f"{method} {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"
        self._socket.sendall(head.encode() + (body or b""))
        length = 0
        while (line := self._file.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self._file.read(length)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextlib.contextmanager
def surroundings() -> Iterator[tuple[str, "Redis", list[str], "subprocess.Popen[bytes]"]]:
    """Yield the application's address, a client of a Redis, the options for it, its process."""
    application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    application.daemon_threads = True
    threading.Thread(target=application.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        client = Redis(unix_socket_path=path)
        while not Path(path).exists():
            time.sleep(0.05)
        (Path(folder) / "secret").write_text("0123456789abcdef" * 4)
        try:
            yield (
                f"127.0.0.1:{application.server_port}",
                client,
                ["--shared", f"unix://{path}", "--shared-secret", f"{folder}/secret"],
                server,
            )
        finally:
            client.close()
            server.kill()
            server.wait()
            application.shutdown()
            application.server_close()


def told(client: "Redis", what: str) -> int:
    info: Any = client.info()
    return int(info[what])


def settled(box: Box) -> dict[str, Any]:
    """Wait until no more is written; what was written lately waits for a minute."""
    before = -1
    while True:
        shared: dict[str, Any] = box.state()["shared"]
        if shared["connected"] and shared["written"] == before:
            return shared
        before = shared["written"]
        time.sleep(1.0)


def mix(name: str, client: "Redis", box: Box, requests: int, ask: Any) -> None:
    """Ask, and print what that was for the server."""
    visitors = Visitors(box)
    before = settled(box)
    names = ("total_commands_processed", "total_net_input_bytes", "total_net_output_bytes")
    began, began_at = [told(client, one) for one in names], time.monotonic()
    for number in range(requests):
        ask(visitors, number)
    after = settled(box)
    took_s = time.monotonic() - began_at
    commands, received, sent = [told(client, one) - b for one, b in zip(names, began, strict=True)]
    # The signs of life of one box, measured by `idle`.
    idle = IDLE or (0.0, 0.0, 0.0)
    each = [
        max(0.0, value - rate * took_s) / requests
        for value, rate in zip((commands, received, sent), idle, strict=True)
    ]
    visitors.close()
    print(
        f"{name:32} {each[0]:6.2f} commands, {each[1]:8,.0f} B to it, "
        f"{each[2]:6,.0f} B from it, {after['written'] - before['written']:5} entries"
    )


IDLE: list[float] = []


def idle(client: "Redis", seconds: float) -> None:
    """Measure what a box without visitors asks in a second."""
    names = ("total_commands_processed", "total_net_input_bytes", "total_net_output_bytes")
    began = [told(client, one) for one in names]
    time.sleep(seconds)
    rates = [(told(client, one) - b) / seconds for one, b in zip(names, began, strict=True)]
    IDLE[:] = rates
    print(
        f"{'idle, one box, a second':32} {rates[0]:6.1f} commands, {rates[1]:8,.0f} B to it, "
        f"{rates[2]:6,.0f} B from it"
    )


def cpu_us(box: Box, requests: int) -> float:
    """Return the CPU time of a forwarded request to one of 500 pages, in microseconds."""
    visitors = Visitors(box)
    for number in range(500):
        visitors.ask(f"/warm/{number}")
    time.sleep(5.0)  # until they are written
    began = box.cpu_s()
    requests *= 10  # the CPU time is told in hundredths of a second
    for number in range(requests):
        visitors.ask(f"/warm/{number % 500}")
    used_s = box.cpu_s() - began
    visitors.close()
    return used_s / requests * 1e6


class Slow:
    """Lets a server run for 5 ms of 35: each answer takes about 20 ms."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            os.kill(self._pid, signal.SIGSTOP)
            time.sleep(0.03)
            os.kill(self._pid, signal.SIGCONT)
            time.sleep(0.005)

    def end(self) -> None:
        self._ends.set()
        self._thread.join()


def waits_ms(boxes: list[Box], requests: int) -> list[tuple[float, float]]:
    """Return median and p99 of what visitors of each box wait, in milliseconds.

    The boxes are asked in turns, so what slows this machine slows both. Every fifth page is new.
    """
    visitors = [Visitors(box) for box in boxes]
    took: list[list[float]] = [[] for _ in boxes]
    for _ in range(requests):
        number = next(NUMBERS)
        target = f"/known/{number % 400}" if number % 5 else f"/news/{number}"
        for times, one in zip(took, visitors, strict=True):
            began = time.perf_counter()
            one.ask(target)
            times.append(1e3 * (time.perf_counter() - began))
    for one in visitors:
        one.close()
    return [(sorted(times)[requests // 2], sorted(times)[requests * 99 // 100]) for times in took]


NUMBERS = itertools.count()


def away(requests: int) -> None:
    """Print what visitors wait while the server is well, slow, frozen and killed."""
    with surroundings() as (upstream, client, options, server):
        boxes = [Box(upstream), Box(upstream, *options)]
        settled(boxes[1])
        print("server  | alone: median, p99 (ms) | sharing: median, p99 (ms) | p99 more (ms)")
        slow: Slow | None = None
        for name in ("well", "slow", "frozen", "killed"):
            if name == "slow":
                slow = Slow(server.pid)
            elif slow is not None:
                slow.end()
                slow = None
            if name == "frozen":
                server.send_signal(signal.SIGSTOP)
            elif name == "killed":
                server.kill()
            time.sleep(1.5)
            rounds = [waits_ms(boxes, requests) for _ in range(5)]
            (a, b), (c, d) = [
                [sorted(one[box][at] for one in rounds)[2] for at in range(2)] for box in range(2)
            ]
            print(f"{name:7} | {a:5.2f} {b:6.2f} | {c:5.2f} {d:6.2f} | {d - b:+.2f}", flush=True)
        client.close()
        for box in boxes:
            box.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--away", action="store_true", help="what visitors wait without the server")
    chosen = parser.parse_args()
    n = chosen.requests
    if chosen.away:
        away(n)
        return
    with surroundings() as (upstream, client, options, _):
        alone, box = Box(upstream), Box(upstream, *options)
        settled(box)
        time.sleep(2)
        memory = [one.anonymous_bytes() / 1024**2 for one in (alone, box)]
        print(f"memory of an idle box: {memory[0]:.1f} MiB alone, {memory[1]:.1f} MiB sharing")
        idle(client, 10.0)
        empty = told(client, "used_memory")
        mix("new pages, for everyone", client, box, n, lambda v, i: v.ask(f"/page/{i}"))
        pages = told(client, "used_memory") - empty
        print(f"{'memory of a page of 12 KB':32} {pages / n:,.0f} B at the server")
        mix("the same pages again", client, box, n, lambda v, i: v.ask(f"/page/{i}"))
        mix("a page that changes each time", client, box, n, lambda v, _: v.ask("/new"))
        mix("a visitor's own pages", client, box, n,
            lambda v, i: v.ask(f"/own/{i % 20}", f"{i // 20:032}"))  # fmt: skip
        mix("forms", client, box, n, lambda v, i: v.ask(f"/cart/{i % 50}", f"{i:032}", b"a=b"))
        rounds = [(cpu_us(alone, n), cpu_us(box, n)) for _ in range(3)]
        ratio = sorted(b / a for a, b in rounds)[1]
        print(
            f"CPU of a forwarded request: {min(a for a, _ in rounds):.0f} us alone, "
            f"{min(b for _, b in rounds):.0f} us sharing; median ratio {ratio:.3f}"
        )
        alone.end()
        box.end()


if __name__ == "__main__":
    main()

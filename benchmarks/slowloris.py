"""Ten thousand slow heads beside normal traffic: what do the normal visitors notice?

    python -m benchmarks.slowloris [--connections 10000] [--seconds 15] [--rounds 3] [--rate 300]

In each round normal visitors come at a fixed rate (open loop: what is late does not make the next
one late) while all is quiet, and then again while attackers hold connections on which a head drips
in, a field every few seconds. RETTER ends such a connection after `--head-timeout`, and the
attackers open another for it at once. Their source addresses are all over 127.0.0.0/8, so that no
limit of connections an address decides.

The bars: the 99th percentile of normal requests stays within twice that of the quiet phase (the
median of the rounds, since other programs may take the machine's processors for a while), and
RETTER's memory grows by no more than 60 MB. The attackers yield the processor to everybody else:
they stand for other people's machines.

Linux only: /proc, and a loopback network of more than one address.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

CONNECTIONS = 10_000
RATIO_MAX = 2.0
GROWTH_MB_MAX = 60.0

# Between two fields of an attacker's head. RETTER gives a head 10 seconds.
DRIP_S = 2.5
SLICES = 250  # of that time, so that not all send at once
# Attackers connect at this rate a second, so that they do not all time out together.
CONNECT_RATE = 1_500
ADDRESSES = 200  # 127.0.1.1 and on
VISITORS = 32  # keep-alive connections of normal visitors; a tenth come anew
# The breaker takes a stall of this machine for an application in need, as it should; what is asked
# here is what slow heads do.
RETTER = ("--circuit", "observe")
BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1024\r\n\r\n" + BODY
START = b"GET /%d HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux)\r\n"
FIELD = b"X-%d: %d\r\n"


# -- the application --------------------------------------------------------------------------


class Application(asyncio.Protocol):
    """Answers every head at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def serve_application() -> None:
    server = await asyncio.get_running_loop().create_server(
        Application, "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# -- the attackers ----------------------------------------------------------------------------


class Attacker(asyncio.Protocol):
    """One slow head; when it is ended, another takes its place."""

    def __init__(self, attack: "Attack") -> None:
        self._attack = attack
        self._serial = 0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._attack.open += 1
        self._transport.write(START % random.randrange(1_000_000))

    def drip(self) -> bool:
        """Send a field; False if there is no connection any more."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._serial += 1
        self._transport.write(FIELD % (self._serial, self._serial))
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._attack.open -= 1
        self._attack.ended += 1
        self._transport = None

    def eof_received(self) -> bool:
        return False


class Attack:
    """Holds so many connections, and says now and then how many there are."""

    def __init__(self, port: int, connections: int) -> None:
        self._port = port
        self._connections = connections
        self._slices: list[list[Attacker]] = [[] for _ in range(SLICES)]
        self._addresses = 0
        self.open = 0
        self.ended = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.create_task(self._drip())  # noqa: RUF006 - ends with the process
        pause_s = 0.02
        last = loop.time()
        while True:
            await asyncio.sleep(pause_s)
            now = loop.time()
            room = self._connections - self.open
            wanted = min(room, int(CONNECT_RATE * min(now - last, 0.1)))
            if wanted > 0:
                last = now
                await asyncio.gather(*(self._connect() for _ in range(wanted)))
            print(self.open, self.ended, flush=True)

    async def _connect(self) -> None:
        self._addresses += 1
        address = f"127.0.1.{1 + self._addresses % ADDRESSES}"
        with contextlib.suppress(OSError):
            _, attacker = await asyncio.get_running_loop().create_connection(
                lambda: Attacker(self), "127.0.0.1", self._port, local_addr=(address, 0)
            )
            self._slices[self._addresses % SLICES].append(attacker)

    async def _drip(self) -> None:
        while True:
            for number in range(SLICES):
                await asyncio.sleep(DRIP_S / SLICES)
                self._slices[number] = [one for one in self._slices[number] if one.drip()]


# -- the visitors -----------------------------------------------------------------------------


class Visitors:
    """Normal traffic at a fixed rate; latencies count from when a request was due."""

    def __init__(self, port: int, rate: int) -> None:
        self._port = port
        self._rate = rate
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.failed = 0

    async def measure(self, seconds: float) -> list[float]:
        """Return the latencies in seconds."""
        loop = asyncio.get_running_loop()
        took: list[float] = []
        tasks: set[asyncio.Task[None]] = set()
        begin = loop.time()
        for number in range(int(self._rate * seconds)):
            due = begin + number / self._rate
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            task = loop.create_task(self._visit(number, due, took))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        return took

    async def _visit(self, number: int, due: float, took: list[float]) -> None:
        try:
            async with asyncio.timeout(10):
                if self._idle and number % 10:
                    reader, writer = self._idle.pop()
                else:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(b"GET /page/%d HTTP/1.1\r\nHost: a\r\n\r\n" % (number % 500))
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(BODY))
        except (OSError, asyncio.IncompleteReadError):
            self.failed += 1
            return
        took.append(asyncio.get_running_loop().time() - due)
        self.failed += not head.startswith(b"HTTP/1.1 200 ")
        if len(self._idle) < VISITORS:
            self._idle.append((reader, writer))
        else:
            writer.close()


# -- the processes ----------------------------------------------------------------------------


def run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


@contextlib.contextmanager
def process(*command: str, cpu: int, yields: bool = False) -> Generator[subprocess.Popen[str]]:
    """Run a program on one processor until the block is left."""

    def prepare() -> None:
        if yields:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.sched_setaffinity(0, {cpu})

    program = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=prepare,
    )
    try:
        yield program
    finally:
        program.kill()
        program.wait()


def line_of(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line, "it ended"
    return line


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Phase:
    """What was seen while the visitors came.

    Some came to the application directly: what they have to wait is the machine's doing.
    """

    p50_ms: float
    p99_ms: float
    worst_ms: float
    direct_p99_ms: float
    rss_mb: float
    cpu_share: float
    failed: int


def at(took: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    return 1000 * sorted(took)[min(len(took) - 1, int(len(took) * share))]


async def observe(port: int, direct_port: int, pid: int, options: argparse.Namespace) -> Phase:
    visitors, direct = Visitors(port, options.rate), Visitors(direct_port, options.rate)
    await asyncio.gather(visitors.measure(1.0), direct.measure(1.0))
    cpu, began = cpu_s(pid), time.monotonic()
    took, took_directly = await asyncio.gather(
        visitors.measure(options.seconds), direct.measure(options.seconds)
    )
    used = (cpu_s(pid) - cpu) / (time.monotonic() - began)
    return Phase(
        at(took, 0.5),
        at(took, 0.99),
        at(took, 1.0),
        at(took_directly, 0.99),
        rss_mb(pid),
        used,
        visitors.failed + direct.failed,
    )


class Held:
    """Reads what the attackers say about themselves, so that they never wait for us."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        import threading

        self.open = self.ended = 0
        self._program = program
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            with contextlib.suppress(ValueError):
                self.open, self.ended = map(int, line.split())


async def one_round(options: argparse.Namespace, cpus: list[int]) -> tuple[Phase, Phase, int, int]:
    here = "benchmarks.slowloris"
    with contextlib.ExitStack() as stack:
        application = stack.enter_context(process("-m", here, "--be", "application", cpu=cpus[-1]))
        direct_port = int(line_of(application))
        upstream = f"127.0.0.1:{direct_port}"
        retter = stack.enter_context(
            process("-m", "retter", "--listen", "127.0.0.1:0", "--upstream", upstream,
                    "--log-format", "json", "--admin", "off", *RETTER, *options.retter,
                    cpu=cpus[0])
        )  # fmt: skip
        while '"serving"' not in (line := line_of(retter)):
            pass
        port = int(json.loads(line)["listen"][0].rpartition(":")[2])
        quiet = await observe(port, direct_port, retter.pid, options)
        attack = stack.enter_context(
            process("-m", here, "--be", "attack", "--port", str(port), "--connections",
                    str(options.connections), cpu=cpus[-1], yields=True)
        )  # fmt: skip
        held = Held(attack)
        until = time.monotonic() + 120
        while held.open < options.connections * 0.95:
            assert time.monotonic() < until, f"only {held.open} attackers got through"
            await asyncio.sleep(0.1)
        attacked = await observe(port, direct_port, retter.pid, options)
        return quiet, attacked, held.open, held.ended


async def compare(options: argparse.Namespace) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[-1]})
    names = ("p50 ms", "p99 ms", "max ms", "direct*", "RSS MB", "CPU", "failed")
    print(" " * 8 + "".join(f"{name:>9}" for name in names))
    ratios: list[float] = []
    growths: list[float] = []
    failed = 0
    for _ in range(options.rounds):
        quiet, attacked, held, ended = await one_round(options, cpus)
        for name, phase in (("quiet", quiet), ("attacked", attacked)):
            print(
                f"{name:8}{phase.p50_ms:9.2f}{phase.p99_ms:9.2f}{phase.worst_ms:9.1f}"
                f"{phase.direct_p99_ms:9.2f}{phase.rss_mb:9.1f}{phase.cpu_share:9.0%}"
                f"{phase.failed:9}"
            )
        print(f"{'':8} {held} attackers held, {ended} ended so far")
        ratios.append(attacked.p99_ms / quiet.p99_ms)
        growths.append(attacked.rss_mb - quiet.rss_mb)
        failed += quiet.failed + attacked.failed
    ratio, growth = median(ratios), max(growths)
    rounds = ", ".join(f"{one:.2f}" for one in ratios)
    print("* p99 of visitors who go to the application directly: the machine's own part")
    print(f"p99 ratio {ratio:.2f} (bar {RATIO_MAX:g}; rounds {rounds})")
    print(f"RSS growth {growth:+.1f} MB (bar +{GROWTH_MB_MAX:g})")
    missed = ratio > RATIO_MAX or growth > GROWTH_MB_MAX or failed > 0
    sys.exit(1 if missed else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=300, help="normal requests a second")
    parser.add_argument("--be", choices=["application", "attack"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("retter", nargs="*", help="more options of RETTER, after --")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.be == "application":
        run(serve_application())
    elif options.be == "attack":
        run(Attack(options.port, options.connections).run())
    else:
        run(compare(options))


if __name__ == "__main__":
    main()

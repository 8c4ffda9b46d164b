"""The cost of the store on disk, and what it survives: `make lasting`.

Each row prints its figure beside its bar.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.request import urlopen

from benchmarks.lasting.requests import Client, answered, forwarded, retter
from benchmarks.lasting.takeover import slices_s
from benchmarks.perf.report import with_lasting
from retter.config.settings import Settings
from retter.disk.opening import open_shelf
from retter.disk.shelf import DiskShelf
from retter.http.message import Framing, HeadForm, RequestHead, ResponseHead
from retter.store.owner import OwnerRules
from retter.store.policy import Identity, identify
from retter.store.store import ResponseStore, StoreRules
from retter.store.write_behind import Found

MIB: Final = 1024 * 1024
PAGE_BYTES: Final = 12 * 1024
HOST: Final = b"shop.example"


class Immediately:
    """A thread that is done at once."""

    def submit(self, job: Callable[[], object], done: Callable[[object], None]) -> None:
        done(job())

    def close(self) -> None:
        pass


def request(path: bytes, session: bytes = b"") -> RequestHead:
    fields = ((b"cookie", b"PHPSESSID=" + session),) if session else ()
    return RequestHead(b"GET", path, HeadForm(host=HOST), fields, fields=fields)


HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
RESPONSE: Final = ResponseHead(
    status=200, fields=((b"content-type", b"text/html"),), framing=Framing.NONE, content_length=0,
    keep_alive=True, forward=HEAD, stored=HEAD, set_cookies=(), event_stream=False, plain=False,
)  # fmt: skip


def body_of(path: bytes, session: bytes, version: int = 0) -> bytes:
    """Return a page that says whose it is, and differs from all others."""
    line = b"%b|%b|%d|" % (path, session, version)
    return line * (PAGE_BYTES // len(line))


class Site:
    """A store on disk, as a proxy has it."""

    def __init__(self, folder: str, memory_bytes: int, disk_bytes: int) -> None:
        settings = Settings(upstream=":1", store=folder, store_disk_bytes=disk_bytes)
        self.disk: DiskShelf = open_shelf(
            settings, Immediately(), Immediately(), time.monotonic, faults=True
        )
        self.disk.start()
        self.rules = OwnerRules(secret=self.disk.secret, lasting=True, origin=os.urandom(16))
        self.store = ResponseStore(
            StoreRules(
                secret=self.disk.secret, public_secret=self.disk.site_key, bytes_max=memory_bytes
            )
        )
        self.store.put_behind(self.disk.behind)

    def put(self, path: bytes, session: bytes = b"", version: int = 0) -> None:
        asked, now = request(path, session), time.monotonic()
        body = body_of(path, session, version)
        self.store.put(identify(asked, self.rules), asked, RESPONSE, body, now, now)
        self.disk.tick(now)

    def identity(self, path: bytes, session: bytes = b"") -> tuple[Identity, RequestHead]:
        asked = request(path, session)
        return identify(asked, self.rules), asked

    def _promote(self, found: dict[bytes, Found]) -> None:
        for key, one in found.items():
            self.store.shelves.promote(key, one)

    def get(self, path: bytes, session: bytes = b"") -> bytes | None:
        identity, asked = self.identity(path, session)
        keys = [key for key in self.store.awaited_keys(identity) if self.disk.is_slow(key)]
        if keys:
            self.disk.load(keys, self._promote)
        found = self.store.lookup(identity, asked, time.monotonic(), superseded=True)
        return None if found is None else found.body


# -- killed ---------------------------------------------------------------------------------------

ROUND_S: Final = 60.0  # for a process that looks at a copy

SESSIONS: Final = [b"visitor-%d-0123456789abcdef" % number for number in range(4)]
PATHS: Final = [b"/page/%d" % number for number in range(60)]


def storm(folder: str) -> None:
    """Store, change and drop, until killed; what is dropped is said before the next step."""
    site, rng = Site(folder, 4 * MIB, 8 * MIB), random.Random()
    print("ready", flush=True)
    version = 0
    while True:
        version += 1
        session = rng.choice([b"", *SESSIONS])
        site.put(rng.choice(PATHS), session, version)
        if version % 50 == 0:
            gone = rng.choice(SESSIONS)
            identity, _ = site.identity(b"/", gone)
            site.store.invalidation.drop_owner(identity.owner, time.monotonic(), identity.marks)
            print("dropped", gone.decode(), version, flush=True)


def killed(rounds: int) -> tuple[int, int]:
    """Return how many pages came back whole, and how many were wrong."""
    whole = wrong = 0
    with tempfile.TemporaryDirectory() as base:
        folder = os.path.join(base, "store")
        for number in range(rounds):
            command = [sys.executable, "-m", "benchmarks.lasting", "--storm", folder]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                child.stdout.readline()
                time.sleep(random.uniform(0.02, 0.25))
                child.send_signal(signal.SIGKILL)
                said = child.stdout.read().splitlines()
            dropped = {
                words[1].encode(): int(words[2])
                for words in map(str.split, said)
                if len(words) == 3 and words[2].isdigit()
            }
            good, bad = verified(folder, dropped)
            whole, wrong = whole + good, wrong + bad
            good, bad = damaged(base, folder)
            whole, wrong = whole + good, wrong + bad
            progress(f"killed {number + 1} of {rounds}: {whole} pages whole, {wrong} wrong")
    return whole, wrong


def verified(folder: str, dropped: dict[bytes, int]) -> tuple[int, int]:
    whole = wrong = 0
    site = Site(folder, 32 * MIB, 8 * MIB)
    for session in [b"", *SESSIONS]:
        for path in PATHS:
            body = site.get(path, session)
            if body is None:
                continue
            words = body.split(b"|", 3)
            owner = words[1] if len(words) > 3 else b"?"
            right = (
                owner in (session, b"")
                and words[2].isdigit()
                and body == body_of(path, owner, int(words[2]))
                and (not owner or int(words[2]) > dropped.get(owner, 0))
            )
            whole, wrong = whole + right, wrong + (not right)
    site.disk.close()
    return whole, wrong


def damaged(base: str, folder: str) -> tuple[int, int]:
    """Look at a copy that is cut off, or has flipped bits, in a process that may die of it."""
    copy = os.path.join(base, "copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    file = Path(copy, "data.mdb")
    data = bytearray(file.read_bytes())
    if random.random() < 0.5:
        del data[random.randrange(len(data)) :]
    else:
        for _ in range(20):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)
    for _ in range(3):  # it may die once, and no more
        command = [sys.executable, "-m", "benchmarks.lasting", "--verify", copy]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ROUND_S)
        if done.returncode == 0:
            whole, wrong = done.stdout.split()
            return int(whole), int(wrong)
    return 0, 1


# -- time and memory ------------------------------------------------------------------------------


def fill(folder: str, megabytes: int) -> int:
    """Store so much; return the number of pages."""
    site = Site(folder, 16 * MIB, (megabytes + megabytes // 4) * MIB)
    count = megabytes * MIB // (PAGE_BYTES + 4096)
    for number in range(count):
        site.put(b"/page/%d" % number)
        if number % 100 == 0:
            site.disk.flush()  # faster than any site, it would be dropped
        if number % 5000 == 0:
            progress(f"stored {number} of {count} pages")
    site.disk.close()
    return count


class Started(NamedTuple):
    """How a RETTER begins with a store on disk whose pages are not in memory."""

    took_s: float  # from exec to the first stored answer
    cpu_s: float  # of the process until then
    imports_cpu_s: float  # of an interpreter that only imports the same
    nothing_s: float  # an interpreter that does nothing
    anonymous_mb: float  # RssAnon after many requests
    good: int  # of so many requests were answered from the store
    asked: int
    held: dict[str, int]  # reads on the loop, by how long they took at most
    held_ms_max: float
    waited: list[float]  # how long work of 20 us took that reads nothing, by the clock


STARTS: Final = 5  # the fastest counts, because others use the machine
IMPORTS: Final = (
    "import retter.cli, retter.process.running, retter.disk.opening, retter.disk.threads, uvloop"
)
PIECES: Final = 5000
COLD: Final = 200  # requests whose pages come from the disk, which others may use


def started(folder: str, count: int) -> Started:
    """Start a RETTER with a dead application, and ask for pages all over the store."""
    _, imports_cpu_s = took(IMPORTS)
    nothing_s, _ = took("pass")
    os.sync()  # what is not on the disk cannot be dropped
    drop_pages(folder)
    begun = time.perf_counter()
    options = ("--store", folder, "--store-disk", "2GiB", "--store-memory", "16MiB")
    with retter(1, *options) as running:
        while not ask(running.port, 77).startswith(b"HTTP/1.1 200"):
            assert time.perf_counter() - begun < 60
            time.sleep(0.002)
        took_s, cpu_s = time.perf_counter() - begun, running.cpu_s()
        paths = [b"/page/%d" % (number * 7919 % count) for number in range(COLD)]
        others = [b"/page/%d" % (number * 7 % count) for number in range(3000)]
        client = Client(running.port)
        # Cold in the thread; then at once, since others have pushed them out of memory.
        good = sum([client.ask(asked) for asked in (paths, others, paths, others)])
        anonymous = running.memory_mb()
        state = json.loads(urlopen(f"http://{running.admin}/api/state").read())
        figures = urlopen(f"http://{running.admin}/metrics").read().decode()
    held = {
        end: int(float(number))
        for end, number in re.findall(r'disk_read_seconds_bucket{le="([^"]+)"} (\S+)', figures)
    }
    return Started(
        took_s, cpu_s, imports_cpu_s, nothing_s, anonymous, good, 2 * len(paths + others), held,
        state["disk"]["held_s_max"] * 1000, waited_s(),
    )  # fmt: skip


def waited_s() -> list[float]:
    """Return how long short pieces of work took by the clock: what other programs do to them."""
    found: list[float] = []
    for _ in range(PIECES):
        begun = time.perf_counter()
        while time.perf_counter() - begun < 0.00002:
            pass
        found.append(time.perf_counter() - begun)
    return found


def took(code: str) -> tuple[float, float]:
    """Run code in an interpreter of its own; return how long that took, and its CPU time."""
    used, begun = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    took_s, now = time.perf_counter() - begun, os.times()
    cpu_s = now.children_user + now.children_system - used.children_user - used.children_system
    return took_s, cpu_s


def drop_pages(folder: str) -> None:
    """Have the kernel forget what it holds of the file, so that it comes from the disk."""
    with open(os.path.join(folder, "data.mdb"), "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ask(port: int, number: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(
                b"GET /page/%d HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n" % number
            )
            return client.recv(65536)
    except OSError:
        return b""


def progress(text: str) -> None:
    print(f"\r{text:70}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make lasting", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="rounds of kill -9 (default 100)")
    parser.add_argument(
        "--mib", type=int, default=1024, help="size of the store (default 1024); 0: only the kills"
    )
    parser.add_argument("--write", action="store_true", help="write benchmarks/lasting.md")
    parser.add_argument("--storm", help=argparse.SUPPRESS)
    parser.add_argument("--verify", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.storm:
        storm(options.storm)
    if options.verify:
        print(*verified(options.verify, {}))
        return 0
    rows: list[tuple[str, str, str, bool]] = []
    whole = wrong = 0
    if options.kills:
        whole, wrong = killed(options.kills)
        rows.append((
            f"{options.kills} times `kill -9` in a storm of writes and logouts, and each time a "
            "copy that is cut off or has flipped bits",
            "0 wrong", f"{whole:,} pages whole, {wrong} wrong", wrong == 0,
        ))  # fmt: skip
    if not options.mib:
        print("\n" + "; ".join([f"{what}: {reached}" for what, _, reached, _ in rows]))
        return 1 if wrong else 0
    with tempfile.TemporaryDirectory() as base:
        folder = os.path.join(base, "store")
        count = fill(folder, options.mib)
        shutil.copytree(folder, folder + ".copy")
        rows += rows_of_a_start([started(folder, count) for _ in range(STARTS)])
        progress("what a takeover holds")
        rows.append(row_of_a_takeover(slices_s()))
        progress("what a stored answer costs")
        rows += rows_of_answers(answered(folder, count))
        progress("what a forwarded page costs; two minutes")
        rows += rows_of_forwarding(forwarded(base))
    text = report(rows, options.mib, count)
    print("\n" + text)
    if options.write:
        PAGE.write_text(text)
        readme = PAGE.parent / "README.md"
        readme.write_text(with_lasting(readme.read_text(), text))
    return 1 if wrong else 0


PAGE: Final = Path(__file__).parent.parent / "lasting.md"

Row = tuple[str, str, str, bool]  # what, bar, reached, whether it is met


def rows_of_a_start(starts: list[Started]) -> list[Row]:
    """Return the rows of the start, of memory, and of cold pages."""
    one = starts[-1]
    wall_ms = min([each.took_s for each in starts]) * 1000
    cpu_ms = min([each.cpu_s for each in starts]) * 1000
    nothing_ms = min([each.nothing_s for each in starts]) * 1000
    imports_cpu_ms = min([each.imports_cpu_s for each in starts]) * 1000
    reads = sum([each.held.get("+Inf", 0) for each in starts])
    over = reads - sum([each.held.get("0.005", 0) for each in starts])
    held_ms = max([each.held_ms_max for each in starts])
    waited = [one for each in starts for one in each.waited]
    others = sum([one > 0.005 for one in waited])
    return [
        ("exec to the first stored response, without interpreter and imports, application dead, "
         "nothing of the file in memory", "300 ms",
         f"{cpu_ms:.0f} ms of CPU with them, and an interpreter that imports the same and ends "
         f"takes {imports_cpu_ms:.0f}; by the clock {wall_ms:.0f} with them, "
         f"{wall_ms / nothing_ms:.0f} times `python -c pass` beside it ({nothing_ms:.0f})",
         cpu_ms - imports_cpu_ms <= 300),
        ("`RssAnon` with 16 MiB of memory", "50 MB", f"{one.anonymous_mb:.0f} MB",
         one.anonymous_mb <= 50),
        ("requests all over the store that were answered from it", "as with all in memory: 100 %",
         f"{100 * one.good / one.asked:.1f} % of {one.asked:,}", one.good == one.asked),
        ("reads that held the loop for more than 5 ms, pages cold at first", "0",
         f"{over} of {reads:,}, the longest {held_ms:.1f} ms; of pieces of work that read nothing "
         f"{others} of {len(waited):,}, the longest {max(waited) * 1000:.1f} ms: the machine's",
         over * len(waited) <= others * reads),
    ]  # fmt: skip


def row_of_a_takeover(slices: list[float]) -> Row:
    """Return the row of the old process's event loop during a takeover."""
    over, longest_ms = sum([one > 0.005 for one in slices]), max(slices) * 1000
    return (
        "slices of a takeover (SIGUSR2) with 4,000 pages that held the loop for more than 5 ms",
        "0", f"{over} of {len(slices):,}; the longest {longest_ms:.1f} ms of CPU", over == 0,
    )  # fmt: skip


def rows_of_answers(us: dict[str, float]) -> list[Row]:
    """Return the rows of stored answers."""
    again, first = us["asked again"] / us["no disk"], us["first"] / us["asked again"]
    return [
        ("a stored answer in memory, with a disk behind it", "1.05 x without",
         f"{again:.2f} x ({us['asked again']:.1f} us of CPU, {us['no disk']:.1f} without)",
         again <= 1.05),
        ("a stored answer from the disk, its pages in the system's memory; RETTER's has room for a "
         "tenth of the responses", "1.3 x", f"{first:.2f} x ({us['first']:.1f} us)", first <= 1.3),
    ]  # fmt: skip


def rows_of_forwarding(us: dict[str, float]) -> list[Row]:
    """Return the rows of forwarded pages."""
    rows: list[Row] = []
    for kind, what, bar in (("same", "page that has not changed", 1.03), ("new", "new page", 1.25)):
        ratio = us[f"{kind}, disk"] / us[f"{kind}, no disk"]
        rows.append((
            f"forwarding a {what} of 12 KiB", f"{bar} x without",
            f"{ratio:.2f} x ({us[f'{kind}, disk']:.0f} us of CPU, all threads)", ratio <= bar,
        ))  # fmt: skip
    return rows


def report(rows: list[Row], mib: int, count: int) -> str:
    """Return the page."""
    lines = [
        "# What the store on disk costs and survives", "",
        f"Measured with `make lasting ARGS=--write` on a machine of {os.cpu_count()} cores that "
        "other programs used at the same time:",
        "CPU time is that of the process, and the clock shows upper bounds. On a machine as busy "
        "as this one the CPU time of a request",
        "varies by a tenth from run to run: processes take turns, and of their rounds the median "
        "of the fastest quarter counts (of new pages the mean).",
        "What a request costs is counted in instructions too: `tests/proxy/test_stored_cost.py`,",
        f"`tests/proxy/test_forwarding_cost.py`. {mib} MiB in {count:,} pages of 12 KiB.", "",
        "| what | bar | reached | |", "| --- | ---: | --- | --- |",
    ]  # fmt: skip
    lines += [
        f"| {what} | {bar} | {reached} | {'met' if met else '**missed**'} |"
        for what, bar, reached, met in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

"""What the store on disk costs and survives: `make lasting`.

Each row prints its figure beside its bar. Times of single steps are medians in one process, without
sockets: what a request costs beside them is in the other benchmarks.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from retter.config.settings import Settings
from retter.disk.shelf import DiskShelf, open_shelf
from retter.http.message import Framing, RequestHead, ResponseHead
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
    return RequestHead(
        method=b"GET", target=path, http11=True, host=HOST, fields=fields,
        framing=Framing.NONE, content_length=0, keep_alive=True, expect_continue=False, upgrade=b"",
        forward=b"", identity_fields=fields, conditional=False, variant_key=b"",
    )  # fmt: skip


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
        done = subprocess.run(command, capture_output=True, text=True, check=False)
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
        if number % 5000 == 0:
            progress(f"stored {number} of {count} pages")
    site.disk.close()
    return count


def started(folder: str, count: int) -> tuple[float, float, float]:
    """Return seconds from exec to the first stored answer, of imports alone, and RssAnon in MB."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import retter.cli, retter.process.program, retter.disk.shelf"],
        check=True,
    )
    imports_s = time.perf_counter() - begun
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.perf_counter()
    command = [
        sys.executable, "-m", "retter", "--listen", f"127.0.0.1:{port}", "--upstream",
        "127.0.0.1:1", "--admin", "off", "--store", folder, "--store-disk", "2GiB",
        "--store-memory", "16MiB", "--log-level", "error", "--connect-hold", "0s",
    ]  # fmt: skip
    with subprocess.Popen(command) as child:
        try:
            while not ask(port, 77).startswith(b"HTTP/1.1 200"):
                assert time.perf_counter() - begun < 60
                time.sleep(0.002)
            took_s = time.perf_counter() - begun
            for number in range(2000):
                ask(port, number * 7 % count)
            status = Path(f"/proc/{child.pid}/status").read_text()
            anonymous = int(status.split("RssAnon:")[1].split()[0]) / 1024
        finally:
            child.terminate()
    return took_s, imports_s, anonymous


def ask(port: int, number: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(
                b"GET /page/%d HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n" % number
            )
            return client.recv(65536)
    except OSError:
        return b""


def steps(folder: str, count: int) -> dict[str, float]:
    """Return microseconds of single steps."""
    figures: dict[str, float] = {}
    site = Site(folder, 64 * MIB, 2048 * MIB)
    paths = [b"/page/%d" % number for number in range(min(count, 2000))]
    figures["cold, in the thread"] = median(lambda path: site.get(path), paths)
    figures["near"] = median(lambda path: site.get(path), paths)

    def forget(path: bytes) -> None:
        site.store.invalidation.drop_keys([b"*" + HOST + path])

    figures["here, hot"] = median(lambda path: site.get(path), paths, forget)
    figures["worst held by a read, ms"] = site.disk.held_s_max * 1000
    figures["stored, unchanged"] = median(site.put, paths)
    site.disk.close()
    return figures


def median(
    step: Callable[[bytes], object],
    paths: list[bytes],
    before: Callable[[bytes], object] | None = None,
) -> float:
    took = []
    for path in paths:
        if before is not None:
            before(path)
        begun = time.perf_counter()
        step(path)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def progress(text: str) -> None:
    print(f"\r{text:70}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make lasting", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="rounds of kill -9 (default 100)")
    parser.add_argument("--mib", type=int, default=1024, help="size of the store (default 1024)")
    parser.add_argument("--storm", help=argparse.SUPPRESS)
    parser.add_argument("--verify", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.storm:
        storm(options.storm)
    if options.verify:
        print(*verified(options.verify, {}))
        return 0
    whole, wrong = killed(options.kills)
    print(f"\n{options.kills} kills: {whole} pages whole, {wrong} wrong (bar: 0)")
    with tempfile.TemporaryDirectory() as base:
        folder = os.path.join(base, "store")
        count = fill(folder, options.mib)
        took_s, imports_s, anonymous = started(folder, count)
        ms = (took_s - imports_s) * 1000
        print(f"\nfirst stored answer: {took_s * 1000:.0f} ms after exec, without interpreter and")
        print(
            f"  imports ({imports_s * 1000:.0f} ms) {ms:.0f} ms (bar: 300), {count} pages on disk"
        )
        print(f"RssAnon with 16 MiB of memory: {anonymous:.0f} MB (bar: 50)")
        for name, figure in steps(folder, count).items():
            print(f"  {name:28} {figure:8.1f}{'' if 'ms' in name else ' us'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

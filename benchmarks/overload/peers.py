"""The proxies in front of the application: each peer's configuration, its start and its end.

All are set up as an operator would who wants the same: keep the site answering when the
application cannot. They run on one core, listen on loopback and keep their files in a temporary
directory.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from math import nan
from pathlib import Path
from typing import IO, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from benchmarks.overload.nginx import common_beginning

START_S: Final = 40.0
STOP_S: Final = 10.0
PROXY_CORE: Final = "1"
OTHER_CORE: Final = 0


class StartFailed(Exception):
    """A program did not come up; the text says which and shows its last words."""


class Peer(ABC):
    """One way to stand in front of an application."""

    name: str
    about: str
    program: str = ""  # empty: always there

    def installed(self) -> bool:
        """Tell whether it can be started here."""
        return not self.program or path_of(self.program) is not None

    @abstractmethod
    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Write what it needs into the folder; return how to start it in the foreground."""

    def changes(self) -> float | None:
        """Return how often its circuit has changed its state since it came up; None: no circuit.

        Raises OSError.
        """
        return None


class Retter(Peer):
    """The one this is about, as it comes."""

    name = "retter"
    about = "no options but the addresses"

    def __init__(self) -> None:
        self._admin = 0

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Return its command line."""
        self._admin = free_port()
        return (
            sys.executable, "-m", "retter",
            "--listen", f"127.0.0.1:{listen}", "--upstream", f"127.0.0.1:{application}",
            "--admin", f"127.0.0.1:{self._admin}",
        )  # fmt: skip

    def changes(self) -> float:
        """Return how often the circuit has changed its state. Raises OSError."""
        state = json.loads(ask(f"http://127.0.0.1:{self._admin}/api/state"))
        return float(state["totals"]["transitions"])


class Nothing(Peer):
    """The bare application."""

    name = "nothing"
    about = "clients talk to the application"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Return nothing to start."""
        return ()


class Nginx(Peer):
    """Its cache, fresh for a second, stale whenever it may, updated in the background."""

    name = "nginx"
    about = "proxy_cache 1 s, use_stale with updating and errors, background update, lock"
    program = "nginx"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Write nginx.conf."""
        configuration = f"""\
{common_beginning(folder, root=os.geteuid() == 0)}
proxy_cache_path {folder}/cache levels=1:2 keys_zone=shop:16m inactive=1h max_size=256m;
upstream application {{ server 127.0.0.1:{application} max_fails=0; keepalive 64; }}
server {{
  listen 127.0.0.1:{listen} backlog=4096;
  location / {{
    proxy_pass http://application;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_connect_timeout 2s;
    proxy_read_timeout 15s;
    proxy_next_upstream off;
    proxy_cache shop;
    proxy_cache_valid 200 301 302 1s;
    proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
    proxy_cache_background_update on;
    proxy_cache_lock on;
  }}
}}
}}
"""
        (folder / "nginx.conf").write_text(configuration)
        program = path_of("nginx") or "nginx"
        return program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")


class Haproxy(Peer):
    """No store: as many requests as there are workers, half a second of queueing for others."""

    name = "haproxy"
    about = "maxconn as many as the application has workers, timeout queue 500ms"
    program = "haproxy"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Write haproxy.cfg."""
        configuration = f"""\
global
    maxconn 9000
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 15s
    timeout queue 500ms
    http-reuse safe
listen shop
    bind 127.0.0.1:{listen} backlog 4096
    server application 127.0.0.1:{application} maxconn {workers}
"""
        (folder / "haproxy.cfg").write_text(configuration)
        return path_of("haproxy") or "haproxy", "-db", "-f", str(folder / "haproxy.cfg")


class Varnish(Peer):
    """A second's lifetime and an hour's grace, errors of a background fetch thrown away."""

    name = "varnish"
    about = "TTL 1 s, grace 1 h"
    program = "varnishd"

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Write the VCL."""
        configuration = f"""\
vcl 4.1;
backend default {{
    .host = "127.0.0.1";
    .port = "{application}";
    .connect_timeout = 2s;
    .first_byte_timeout = 15s;
}}
sub vcl_backend_response {{
    if (beresp.status >= 500 && bereq.is_bgfetch) {{
        return (abandon);
    }}
    set beresp.ttl = 1s;
    set beresp.grace = 1h;
}}
"""
        (folder / "shop.vcl").write_text(configuration)
        jail = ("-j", "none") if os.geteuid() == 0 else ()
        return (
            path_of("varnishd") or "varnishd", *jail, "-F", "-n", str(folder / "work"),
            "-a", f"127.0.0.1:{listen}", "-f", str(folder / "shop.vcl"), "-s", "malloc,128m",
            "-p", "thread_pools=1", "-p", "thread_pool_min=64", "-p", "thread_pool_max=4000",
            "-p", "listen_depth=4096",
        )  # fmt: skip


class TwoBoxes(Retter):
    """Two of them, which share through a Redis and get half of the requests each.

    They are told how much the application can do at once: what a box measures is not shared.
    """

    name = "two-boxes"
    about = "two retters that share through a Redis, behind HAProxy; --max-in-flight"
    program = "haproxy"

    def __init__(self) -> None:
        super().__init__()
        self._admins: list[int] = []

    def installed(self) -> bool:
        """Tell whether it can be started here."""
        return super().installed() and path_of("redis-server") is not None

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Return the command line of all of them together."""
        self._admins = [free_port(), free_port()]
        return (
            sys.executable, "-m", "benchmarks.boxes.pair", "--listen", str(listen),
            "--upstream", str(application), "--folder", str(folder),
            "--max-in-flight", str(workers),
            "--admin", *map(str, self._admins),
        )  # fmt: skip

    def changes(self) -> float:
        """Return how often the circuit of one of them has changed. Raises OSError."""
        states = [json.loads(ask(f"http://127.0.0.1:{port}/api/state")) for port in self._admins]
        return max(float(state["totals"]["transitions"]) for state in states)


# Only where --peers names them.
OTHERS: Final[tuple[Peer, ...]] = (TwoBoxes(),)

PEERS: Final[tuple[Peer, ...]] = (Retter(), Nothing(), Nginx(), Haproxy(), Varnish())


class Process:
    """A program that was started here and is ended by its process id."""

    def __init__(self, command: Sequence[str], *, core: str | None, log: Path) -> None:
        pinned = ["taskset", "-c", core, *command] if core is not None else list(command)
        self._log: IO[bytes] = log.open("ab")
        self._log_path = log
        self._process = subprocess.Popen(pinned, stdout=self._log, stderr=self._log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def runs(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None

    def wait_for_port(self, port: int) -> None:
        """Wait until it accepts connections. Raises StartFailed."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.runs():
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise StartFailed(self.last_words())

    def wait_for_lines(self, count: int) -> list[str]:
        """Wait for the first lines it prints. Raises StartFailed."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.runs():
            lines = self._log_path.read_text(errors="replace").split("\n")
            if len(lines) > count:
                return lines[:count]
            time.sleep(0.02)
        raise StartFailed(self.last_words())

    def last_words(self) -> str:
        """Return the end of what it printed."""
        text = self._log_path.read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-5:]) or "it said nothing"

    def cpu_s(self) -> float:
        """Return the processor seconds it and its children have used."""
        return family_cpu_s(self.pid)

    def kill(self) -> None:
        """End it at once."""
        if self.runs():
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it: asked first, then made to."""
        if self.runs():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def ask(url: str, body: bytes | None = None) -> bytes:
    """Return what a server on this machine answers; a body makes it a POST. Raises OSError."""
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(Request(url, body), timeout=10) as answer:
            content: bytes = answer.read()
    except HTTPError as error:
        error.close()  # it holds the connection
        raise
    return content


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@cache
def cores() -> tuple[str | None, str | None]:
    """Return the core of the proxy and that of all else; None where pinning is not possible."""
    # Asked once: after pinning itself this process is allowed one core only.
    able = hasattr(os, "sched_setaffinity") and shutil.which("taskset") is not None
    if not able or not {0, 1} <= os.sched_getaffinity(0):
        return None, None
    return PROXY_CORE, str(OTHER_CORE)


def path_of(program: str) -> str | None:
    """Return where a program is, also one that only root has in its path; None: nowhere."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def family_cpu_s(pid: int) -> float:
    """Return the processor seconds a process and its descendants have used."""
    return sum(_cpu_s(member) for member in _family(pid))


def machine_cpu_s() -> float:
    """Return the processor seconds the whole machine has used; nan where it does not say."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return nan
    user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, fields)
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> list[int]:
    """Return the process and all its descendants (Linux; elsewhere itself alone)."""
    found = [pid]
    for member in found:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # Its own and that of children that have ended, as user and as system.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

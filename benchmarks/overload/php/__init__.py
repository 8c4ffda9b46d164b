"""A real application: a small PHP shop, php-fpm with 8 workers, nginx in front of it by FastCGI.

Both programs as Debian ships them, with configurations in a temporary directory. The shop starts a
session for everyone, as most do that ever call session_start(): each answer, page or not, carries
`Set-Cookie: PHPSESSID=...` and PHP's own `Cache-Control: no-store`. The clients of the load
generator return no cookie, so each request is a new visitor's, who may be given any page that was
fetched without a cookie. RETTER stores these pages, in memory only, and never their Set-Cookie: who
is answered from the store gets no session until a fresh answer or a POST brings one. A cache that
follows those fields, as nginx's and Varnish's do, stores none of these pages.

The workers' queue is the kernel's: 511 connections, then nginx answers 502 at once. The capacity is
measured before the trial: 8 workers by the mean time of an answer when 8 connections ask again at
once. It leaves out that a worker in overload need not wait for the next request to arrive, so a
goodput a little above 100 % is possible.
"""

import http.client
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.overload.applications import Application, ask
from benchmarks.overload.peers import Process, StartFailed, cores, free_port, path_of
from benchmarks.overload.scenarios import CONNECTIONS, SERVICE_MS

SCRIPT: Final = Path(__file__).parent / "shop.php"
_VERSIONED: Final = re.compile(r"php-fpm(\d+)\.(\d+)")
COUNTS: Final = ("gets", "posts", "answered")
BACKLOG: Final = 511             # php-fpm's default
START_S: Final = 15.0
CALIBRATION_S: Final = 10.0      # 1600 exponential times: their mean is off by 2.5 % (one sigma)
WARM_UP_S: Final = 1.0           # before it: the script is compiled once


def missing() -> str:
    """Return which program is not installed; empty if all are."""
    if fpm_program() is None:
        return "php-fpm"
    return "" if path_of("nginx") is not None else "nginx"


def fpm_program() -> str | None:
    """Return the newest php-fpm; Debian's has its version in its name."""
    if (plain := path_of("php-fpm")) is not None:
        return plain
    versions = (_VERSIONED.fullmatch(path.name) for path in Path("/usr/sbin").glob("php-fpm*"))
    found = [(int(match[1]), int(match[2])) for match in versions if match]
    return path_of("php-fpm{}.{}".format(*max(found))) if found else None


def fpm_configuration(folder: Path, *, root: bool) -> str:
    """Return php-fpm's configuration: so many workers, whatever comes."""
    # Only root may, and then must, say who its workers are.
    user = "user = root\ngroup = root\n" if root else ""
    return f"""\
[global]
daemonize = no
pid = {folder}/fpm.pid
error_log = {folder}/fpm.log
[shop]
{user}listen = {folder}/fpm.sock
listen.backlog = {BACKLOG}
pm = static
pm.max_children = {CONNECTIONS}
pm.status_path = /status
pm.status_listen = {folder}/status.sock
php_admin_value[session.save_path] = {folder}/sessions
php_admin_value[display_errors] = stderr
"""


def nginx_configuration(folder: Path, *, listen: int, control: int, root: bool) -> str:
    """Return nginx's configuration: the shop at one port, php-fpm's figures at the other."""
    temp = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    request = "\n".join(
        f"    fastcgi_param {name} ${name.lower()};"
        for name in ("REQUEST_METHOD", "REQUEST_URI", "QUERY_STRING", "CONTENT_TYPE",
                     "CONTENT_LENGTH", "SERVER_PROTOCOL")
    )  # fmt: skip
    return f"""\
{"user root;" if root else ""}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 18000; }}
http {{
access_log off;
{temp}
server {{
  listen 127.0.0.1:{listen} backlog=4096;
  location / {{
    fastcgi_pass unix:{folder}/fpm.sock;
    fastcgi_param SCRIPT_FILENAME {SCRIPT};
{request}
    fastcgi_param SHOP_COUNTS {folder}/counts;
    fastcgi_param SHOP_SERVICE_MS {SERVICE_MS};
  }}
}}
server {{
  listen 127.0.0.1:{control};
  location = /status {{
    fastcgi_pass unix:{folder}/status.sock;
    fastcgi_param SCRIPT_NAME /status;
    fastcgi_param SCRIPT_FILENAME /status;
{request}
  }}
}}
}}
"""


class PhpShop(Application):
    """The two programs, and the capacity that was measured when they had come up."""

    def __init__(self, folder: Path) -> None:
        self.port = 0
        self._folder = folder / "php"
        self._control = 0
        self._processes: list[Process] = []
        self._capacity = 0.0

    @property
    def capacity(self) -> float:
        """The requests a second that it was seen to make, with every worker busy."""
        return self._capacity

    def start(self) -> None:
        """Start both and measure the capacity. Raises StartFailed."""
        fpm, nginx = fpm_program(), path_of("nginx")
        if fpm is None or nginx is None:
            raise StartFailed(f"{missing()} is not installed")
        for name in ("sessions", "counts"):
            (self._folder / name).mkdir(parents=True)
        root = os.geteuid() == 0
        self.port, self._control = free_port(), free_port()
        fpm_file, nginx_file = self._folder / "fpm.conf", self._folder / "nginx.conf"
        fpm_file.write_text(fpm_configuration(self._folder, root=root))
        nginx_file.write_text(
            nginx_configuration(self._folder, listen=self.port, control=self._control, root=root)
        )
        allow_root = ("--allow-to-run-as-root",) if root else ()
        self._run(fpm, "--nodaemonize", *allow_root, "--fpm-config", str(fpm_file))
        self._run(nginx, "-p", str(self._folder), "-e", "stderr", "-c", str(nginx_file))
        self._wait_until_it_answers()
        closed_loop(self.port, CONNECTIONS, WARM_UP_S)
        mean_s = closed_loop(self.port, CONNECTIONS, CALIBRATION_S)
        self._capacity = CONNECTIONS / mean_s

    def _run(self, *command: str) -> None:
        log = self._folder / f"{Path(command[0]).name}.out"
        self._processes.append(Process(command, core=cores()[1], log=log))

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and all(process.runs() for process in self._processes):
            try:
                ask(f"http://127.0.0.1:{self.port}/product/1")
                return
            except OSError:
                time.sleep(0.05)
        raise StartFailed("; ".join(process.last_words() for process in self._processes))

    def stop(self) -> None:
        """End nginx, then php-fpm."""
        for process in reversed(self._processes):
            process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def turn(self, knobs: Mapping[str, Any]) -> None:
        """Refuse: it has no knobs."""
        raise ValueError(f"the PHP shop has no knobs: {', '.join(knobs)}")

    def count_anew(self) -> None:
        """Let the counts start from here; php-fpm's own go on."""
        for name in COUNTS:
            (self._folder / "counts" / name).write_bytes(b"")

    def stats(self) -> dict[str, Any]:
        """Return the shop's counts, and php-fpm's since its start."""
        counts = {name: (self._folder / "counts" / name).stat().st_size for name in COUNTS}
        status = json.loads(ask(f"http://127.0.0.1:{self._control}/status?json"))
        return {**counts, "capacity": self._capacity, "php_fpm": status}

    def cpu_s(self) -> float:
        """Return the processor seconds both have used."""
        return sum(process.cpu_s() for process in self._processes)


def closed_loop(port: int, connections: int, seconds: float) -> float:
    """Return the mean seconds of an answer when each connection asks again at once.

    With a connection for each worker nobody queues, so it is what a request takes of a worker,
    the way to it and back included. Raises StartFailed when an answer is not good.
    """
    times: list[float] = []
    wrong: list[str] = []
    end = time.monotonic() + seconds

    def ask_again_and_again(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        begin = 0.0
        try:
            while begin < end:      # at least once, however late the thread begins
                begin = time.monotonic()
                connection.request("GET", f"/product/{number + 1}")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise OSError(f"status {answer.status}")
                times.append(time.monotonic() - begin)
        except (OSError, http.client.HTTPException) as error:
            wrong.append(str(error))
        finally:
            connection.close()

    threads = [
        threading.Thread(target=ask_again_and_again, args=(n,)) for n in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong or not times:
        raise StartFailed(f"while measuring the capacity: {', '.join(wrong) or 'no answer'}")
    return sum(times) / len(times)

"""php-fpm, and nginx in front of it by FastCGI: both as Debian ships them, for one PHP script.

Their configurations, sockets and logs are in a folder of the caller's, they listen on loopback, and
they are ended by their process ids. The workers' queue is the kernel's: 511 connections, then nginx
answers 502 at once.
"""

import http.client
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.overload.nginx import common_beginning
from benchmarks.overload.peers import Process, StartFailed, ask, free_port, path_of

_VERSIONED: Final = re.compile(r"php-fpm(\d+)\.(\d+)")
BACKLOG: Final = 511  # php-fpm's default
START_S: Final = 60.0  # what a machine under load may need at worst
ANSWER_S: Final = 10.0  # an answer while the capacity is measured


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


def fpm_configuration(folder: Path, *, workers: int, ini: Mapping[str, str], root: bool) -> str:
    """Return php-fpm's configuration: so many workers, whatever comes."""
    # Only root may, and then must, say who its workers are.
    user = "user = root\ngroup = root\n" if root else ""
    values = "".join(f"php_admin_value[{name}] = {value}\n" for name, value in ini.items())
    return f"""\
[global]
daemonize = no
pid = {folder}/fpm.pid
error_log = {folder}/fpm.log
[site]
{user}listen = {folder}/fpm.sock
listen.backlog = {BACKLOG}
pm = static
pm.max_children = {workers}
pm.status_path = /status
pm.status_listen = {folder}/status.sock
{values}"""


def nginx_configuration(
    folder: Path, script: Path, params: Mapping[str, str], *, listen: int, control: int, root: bool
) -> str:
    """Return nginx's configuration: the script at one port, php-fpm's figures at the other."""
    request = "\n".join(
        f"    fastcgi_param {name} ${name.lower()};"
        for name in (
            "REQUEST_METHOD",
            "REQUEST_URI",
            "QUERY_STRING",
            "CONTENT_TYPE",
            "CONTENT_LENGTH",
            "SERVER_PROTOCOL",
        )
    )
    own = "\n".join(f"    fastcgi_param {name} {value};" for name, value in params.items())
    return f"""\
{common_beginning(folder, root=root)}
server {{
  listen 127.0.0.1:{listen} backlog=4096;
  location / {{
    fastcgi_pass unix:{folder}/fpm.sock;
    fastcgi_param SCRIPT_FILENAME {script};
{request}
{own}
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


class FastCgi:
    """The two programs for one script; `port` is nginx's."""

    def __init__(
        self, folder: Path, script: Path, *, workers: int,
        params: Mapping[str, str], ini: Mapping[str, str], core: str | None = None,
        new_port: Callable[[], int] = free_port,
    ) -> None:  # fmt: skip
        self.port = 0
        self._core = core
        self._new_port = new_port
        self._folder = folder
        self._script = script
        self._workers = workers
        self._params = params
        self._ini = ini
        self._control = 0
        self._processes: list[Process] = []

    def start(self, page: str) -> None:
        """Start both and wait until that page is answered well. Raises StartFailed."""
        fpm, nginx = fpm_program(), path_of("nginx")
        if fpm is None or nginx is None:
            raise StartFailed(f"{missing()} is not installed")
        folder, root = self._folder, os.geteuid() == 0
        self.port, self._control = self._new_port(), self._new_port()
        fpm_file, nginx_file = folder / "fpm.conf", folder / "nginx.conf"
        fpm_file.write_text(
            fpm_configuration(folder, workers=self._workers, ini=self._ini, root=root)
        )
        nginx_file.write_text(
            nginx_configuration(
                folder,
                self._script,
                self._params,
                listen=self.port,
                control=self._control,
                root=root,
            )
        )
        allow_root = ("--allow-to-run-as-root",) if root else ()
        self._run(fpm, "--nodaemonize", *allow_root, "--fpm-config", str(fpm_file))
        self._run(nginx, "-p", str(folder), "-e", "stderr", "-c", str(nginx_file))
        self._wait_until_it_answers(page)

    def _run(self, *command: str) -> None:
        log = self._folder / f"{Path(command[0]).name}.out"
        self._processes.append(Process(command, core=self._core, log=log))

    def _wait_until_it_answers(self, page: str) -> None:
        end = time.monotonic() + START_S
        last = "a program ended before it could be asked"
        while time.monotonic() < end and all(process.runs() for process in self._processes):
            try:
                ask(f"http://127.0.0.1:{self.port}{page}")
                return
            except OSError as error:
                last = str(error)
                time.sleep(0.05)
        words = [process.last_words() for process in self._processes]
        raise StartFailed("; ".join([f"{page} did not come: {last}", *words]))

    def stop(self) -> None:
        """End nginx, then php-fpm."""
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()

    def status(self) -> dict[str, Any]:
        """Return php-fpm's figures since its start. Raises OSError."""
        status: dict[str, Any] = json.loads(ask(f"http://127.0.0.1:{self._control}/status?json"))
        return status

    def cpu_s(self) -> float:
        """Return the processor seconds both have used."""
        return sum(process.cpu_s() for process in self._processes)


def closed_loop(port: int, page: str, connections: int, seconds: float) -> list[float]:
    """Return how long each good answer took when each connection asks again at once.

    With a connection for each worker nobody queues, so it is what a request takes of a worker,
    the way to it and back included. Raises StartFailed when more than one answer in ten is not
    good: one that is not is asked for again, as a database may count a connection a moment longer.
    """
    times: list[float] = []
    wrong: list[str] = []
    end = time.monotonic() + seconds

    def ask_again_and_again(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
        begin = 0.0
        try:
            while begin < end:  # at least once, however late the thread begins
                begin = time.monotonic()
                connection.request("GET", f"{page}{number + 1}")
                with connection.getresponse() as answer:
                    answer.read()
                if answer.status == 200:
                    times.append(time.monotonic() - begin)
                else:
                    wrong.append(f"status {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            wrong.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask_again_and_again, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if 10 * len(wrong) > len(times):
        last = wrong[-1] if wrong else "no answer"
        raise StartFailed(f"while measuring the capacity: {len(wrong)} bad answers, {last}")
    return times

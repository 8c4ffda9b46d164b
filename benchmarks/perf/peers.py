"""Who is measured: each program's configuration, its start and its end.

All are set up for the same job with the least that it takes, one worker each, logs off. They
listen on loopback and keep their files in a temporary directory.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.perf.machine import connections_possible, first_line, tree
from benchmarks.perf.pages import page
from benchmarks.perf.scenarios import PAGES, Heads, Mode, Scenario

# A busy machine may need half a minute for what takes half a second. A program that cannot start
# mostly ends by itself, and is not waited for.
START_S: Final = 60.0
STOP_S: Final = 10.0
ROOT: Final = Path(__file__).parent.parent.parent
VENV: Final = ROOT / "benchmarks" / "results" / "venv"  # of what comes from PyPI
COMPILED: Final = ROOT / ".venv" / "compiled"  # made by `make compiled`
STALE_AFTER_S: Final = 1  # lifetime of what nginx and Varnish keep, before they serve it stale
IDLE_S: Final = 3600  # idle connections outlive every scenario

_SBIN: Final = ":/usr/sbin:/sbin:/usr/local/sbin"  # where root's programs are, for everybody


class StartFailed(Exception):
    """A program did not come up; the text says which and shows its last words."""


def path_of(program: str) -> str | None:
    """Return where a program is, or None."""
    return shutil.which(program, path=os.environ.get("PATH", "") + _SBIN)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a peer is to listen, what it stands in front of, and what it may write."""

    listen: int
    application: int
    folder: Path
    scenario: Scenario
    admin: int  # the port of RETTER's admin listener, if there is one
    answer_bytes: int  # of a whole answer of the application, for the floors


def write_byte_code() -> None:
    """Write the byte code of RETTER and of what it imports, as an installer does.

    A process that compiles its source when it starts keeps more memory: RSS start would tell of
    that. Nothing is done for files whose byte code is there.
    """
    packages = ("retter", "h11", "structlog", "uvloop")
    specs = [importlib.util.find_spec(name) for name in packages]
    folders = [folder for spec in specs if spec for folder in spec.submodule_search_locations or ()]
    compiled = [str(COMPILED / "retter")] if COMPILED.exists() else []
    command = (sys.executable, "-m", "compileall", "-q", *folders, *compiled)
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


class Peer(ABC):
    """One program in one role."""

    name: str
    about: str
    mode: Mode | None = None  # None: all modes
    gzip = False  # compresses
    program: str = ""  # empty: always there
    module: str = ""  # a PyPI package that has to be in VENV
    waits_s: float = 0  # from warming until it is as it is to be measured

    def serves(self, scenario: Scenario) -> bool:
        """Tell whether the scenario can be measured with it."""
        fits = self.mode in (None, scenario.mode) and self.gzip == scenario.gzip
        return fits and not scenario.retter_only

    def version(self) -> str | None:
        """Return its version, or None when it is not installed."""
        if self.module:
            python = VENV / "bin" / "python"
            return first_line(str(python), "-c", _VERSION_OF.format(self.module)) or None
        if not self.program:
            return _PYTHON
        if not (path := path_of(self.program)):
            return None
        return first_line(path, *_ASKS_VERSION[self.program]) or "unknown"

    @abstractmethod
    def command(self, site: Site) -> Sequence[str]:
        """Write what it needs into the folder; return how to start it in the foreground."""


_PYTHON: Final = f"Python {sys.version.split()[0]}"
_VERSION_OF: Final = "import importlib.metadata as m; print('{0}', m.version('{0}'))"
_ASKS_VERSION: Final[Mapping[str, tuple[str, ...]]] = {
    "nginx": ("-v",), "haproxy": ("-v",), "varnishd": ("-V",), "caddy": ("version",),
}  # fmt: skip


class Retter(Peer):
    """The one this is about. Forwarding it observes: all of the breaker runs, nothing is held back,
    for with 64 clients that never pause it would rightly find a saturated application.
    """

    name = "retter"
    about = "--circuit observe or open, --admin off, else as it comes"
    watched = True  # where the scenario says so

    def serves(self, scenario: Scenario) -> bool:
        """Tell whether it has the options of the scenario."""
        wanted = {option for option in scenario.retter_options if option.startswith("--")}
        return wanted <= retter_options()

    def version(self) -> str | None:
        """Return RETTER's version and Python's."""
        return first_line(sys.executable, "-m", "retter", "--version") + ", " + _PYTHON

    def command(self, site: Site) -> Sequence[str]:
        """Return its command line."""
        idle = ("--keep-alive", f"{IDLE_S}s") if site.scenario.idle else ()
        options = site.scenario.retter_options
        admin = f"127.0.0.1:{site.admin}" if site.scenario.watched and self.watched else "off"
        plain = () if "--compress" in options else ("--compress", "off")
        return (
            sys.executable, "-m", "retter",
            "--listen", f"127.0.0.1:{site.listen}",
            "--upstream", f"127.0.0.1:{site.application}",
            "--circuit", "observe" if site.scenario.mode is Mode.FORWARD else "open",
            "--admin", admin,
            *idle, *plain, *options,
        )  # fmt: skip


class RetterCompiled(Retter):
    """The same source, compiled."""

    name = "retter-compiled"
    about = "the same, with a request's way compiled by mypyc (`make compiled`)"

    def serves(self, scenario: Scenario) -> bool:
        """Tell whether it has the options of the scenario."""
        return super().serves(scenario) and not scenario.retter_only

    def version(self) -> str | None:
        """Return RETTER's version and Python's, or None when it has not been compiled."""
        if not (COMPILED / ".stamp").exists():
            return None
        return first_line(*self._there(), "-m", "retter", "--version") + ", " + _PYTHON

    def command(self, site: Site) -> Sequence[str]:
        """Return its command line."""
        _, *arguments = super().command(site)
        return (*self._there(), *arguments)

    @staticmethod
    def _there() -> Sequence[str]:
        return ("env", "--chdir", str(COMPILED), sys.executable)


class RetterUnwatched(Retter):
    """The same without an admin listener, where the other has one."""

    name = "retter-unwatched"
    about = "--admin off"
    watched = False

    def serves(self, scenario: Scenario) -> bool:
        """Tell whether there is a difference."""
        return scenario.watched and super().serves(scenario)


def retter_options() -> frozenset[str]:
    """Return the options that its help names."""
    done = subprocess.run(
        [sys.executable, "-m", "retter", "--help-all"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return frozenset(word.strip(",") for word in done.stdout.split() if word.startswith("--"))


def nginx_frame(folder: Path, *, main: str = "", http: str = "", servers: str = "") -> str:
    """Return an nginx.conf whose files are all in a folder."""
    user = "user root;" if os.geteuid() == 0 else ""
    temp = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 65000;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
{main}
events {{ worker_connections {2 * connections_possible()}; }}
http {{
access_log off;
{temp}
keepalive_requests 1000000000;
keepalive_timeout {IDLE_S}s;
client_body_buffer_size 64k;
{http}
{servers}
}}
"""


def nginx_command(folder: Path, configuration: str) -> Sequence[str]:
    """Write nginx.conf; return how to start nginx with it."""
    file = folder / "nginx.conf"
    file.write_text(configuration)
    return path_of("nginx") or "nginx", "-p", str(folder), "-e", "stderr", "-c", str(file)


class Nginx(Peer):
    """A plain proxy with keep-alive on both sides."""

    name = "nginx"
    about = "proxy_pass, keepalive 64"
    mode: Mode | None = Mode.FORWARD
    program = "nginx"
    cache = ""
    zone = "keys_zone=pages:16m inactive=1h"
    more = ""

    def command(self, site: Site) -> Sequence[str]:
        """Write nginx.conf."""
        path = f"proxy_cache_path {site.folder}/cache {self.zone};"
        configuration = nginx_frame(
            site.folder,
            http=path if self.cache else "",
            servers=f"""
upstream application {{
  server 127.0.0.1:{site.application} max_fails=0;
  keepalive {max(64, site.scenario.connections)};
  keepalive_requests 1000000000;
}}
server {{
  listen 127.0.0.1:{site.listen} backlog=4096;
  location / {{
    proxy_pass http://application;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_buffers 16 64k;
    {self.cache}
    {self.more}
  }}
}}
""",
        )
        return nginx_command(site.folder, configuration)


class NginxSameJob(Nginx):
    """What RETTER does, by nginx: the application is asked each time, each good answer is kept for
    its URL and session, and is shown when the application fails.
    """

    name = "nginx-same-job"
    about = "proxy_cache by URL and session, proxy_cache_bypass 1, use_stale, in memory (tmpfs)"
    cache = (
        'proxy_cache pages; proxy_cache_key "$host$request_uri$cookie_phpsessid";'
        " proxy_cache_valid 200 1h; proxy_cache_bypass 1;"
        " proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;"
        " proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;"
    )
    # As much as RETTER stores, and the memory for its keys.
    zone = "levels=1:2 keys_zone=pages:64m max_size=64m use_temp_path=off inactive=1h"

    def serves(self, scenario: Scenario) -> bool:
        """Measure it where heads differ: there it is that a copy for each session costs."""
        return super().serves(scenario) and scenario.heads is not Heads.BY_CONNECTION


class NginxGzip(Nginx):
    """The same, compressing."""

    name = "nginx-gzip"
    about = "proxy_pass, gzip on at level 1"
    gzip = True
    more = "gzip on; gzip_comp_level 1; gzip_min_length 300; gzip_vary on;"


class NginxCache(Nginx):
    """Its cache, fresh for an hour."""

    name = "nginx-cache"
    about = "proxy_cache, hit"
    mode = Mode.STORE
    cache = "proxy_cache pages; proxy_cache_valid 200 1h; proxy_ignore_headers Cache-Control;"


class NginxStale(Nginx):
    """Its cache, run out, with the application dead."""

    name = "nginx-stale"
    about = "proxy_cache 1 s, use_stale, the application dead"
    mode = Mode.STORE
    waits_s = STALE_AFTER_S + 1
    cache = (
        f"proxy_cache pages; proxy_cache_valid 200 {STALE_AFTER_S}s;"
        " proxy_ignore_headers Cache-Control; proxy_next_upstream off;"
        " proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;"
    )


class Haproxy(Peer):
    """A plain proxy."""

    name = "haproxy"
    about = "http-reuse safe, one thread"
    mode: Mode | None = Mode.FORWARD
    program = "haproxy"
    cache = ""
    uses = ""

    def command(self, site: Site) -> Sequence[str]:
        """Write haproxy.cfg."""
        configuration = f"""\
global
    maxconn {connections_possible()}
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client {IDLE_S}s
    timeout http-keep-alive {IDLE_S}s
    timeout server 15s
    http-reuse safe
    option forwardfor
{self.cache}
listen shop
    bind 127.0.0.1:{site.listen} backlog 4096
{self.uses}
    server application 127.0.0.1:{site.application}
"""
        (site.folder / "haproxy.cfg").write_text(configuration)
        return path_of("haproxy") or "haproxy", "-db", "-f", str(site.folder / "haproxy.cfg")


class HaproxyCache(Haproxy):
    """Its cache, fresh for an hour."""

    name = "haproxy-cache"
    about = "http-request cache-use, hit"
    mode = Mode.STORE
    cache = """\
cache pages
    total-max-size 64
    max-object-size 4000000
    max-age 3600
"""
    uses = """\
    http-request cache-use pages
    http-response cache-store pages
"""


class VarnishGrace(Peer):
    """Grace: run out, with the application dead."""

    name = "varnish-grace"
    about = "TTL 1 s, grace 1 h, the application dead"
    mode = Mode.STORE
    program = "varnishd"
    waits_s = STALE_AFTER_S + 1

    def command(self, site: Site) -> Sequence[str]:
        """Write the VCL."""
        (site.folder / "grace.vcl").write_text(f"""\
vcl 4.1;
backend application {{ .host = "127.0.0.1"; .port = "{site.application}"; }}
sub vcl_recv {{ return (hash); }}
sub vcl_backend_response {{
    set beresp.ttl = {STALE_AFTER_S}s;
    set beresp.grace = 1h;
    set beresp.uncacheable = false;
    return (deliver);
}}
""")
        return (
            path_of("varnishd") or "varnishd", "-F", "-n", str(site.folder / "work"),
            "-a", f"127.0.0.1:{site.listen}", "-T", "none", "-f", str(site.folder / "grace.vcl"),
            "-s", "malloc,256m", "-p", f"timeout_idle={IDLE_S}", "-p", "thread_pools=1",
            "-p", "thread_pool_min=64", "-j", "none",
        )  # fmt: skip


class Caddy(Peer):
    """A plain proxy."""

    name = "caddy"
    about = "reverse_proxy, GOMAXPROCS=1"
    mode = Mode.FORWARD
    program = "caddy"

    def command(self, site: Site) -> Sequence[str]:
        """Write the Caddyfile."""
        (site.folder / "Caddyfile").write_text(f"""\
{{
    admin off
    auto_https off
}}
http://:{site.listen} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{site.application}
}}
""")
        file = str(site.folder / "Caddyfile")
        # It saves its configuration. Only 2.7 and later have an option that says no.
        return (
            "env", "GOMAXPROCS=1", f"HOME={site.folder}", f"XDG_CONFIG_HOME={site.folder}",
            f"XDG_DATA_HOME={site.folder}",
            path_of("caddy") or "caddy", "run", "--config", file, "--adapter", "caddyfile",
        )  # fmt: skip


class Relay(Peer):
    """The floor of forwarding."""

    name = "floor-relay"
    about = "uvloop, a pool, no parsing"
    mode = Mode.FORWARD

    def command(self, site: Site) -> Sequence[str]:
        """Return its command line."""
        close = ("--close",) if site.scenario.close else ()
        return (
            sys.executable, "-m", "benchmarks.perf.floors.relay", str(site.listen),
            str(site.application), "--answer-bytes", str(site.answer_bytes), *close,
        )  # fmt: skip


class Constant(Peer):
    """The floor of answering from memory."""

    name = "floor-constant"
    about = "uvloop, the same bytes for whatever arrives"
    mode = Mode.STORE

    def command(self, site: Site) -> Sequence[str]:
        """Return its command line."""
        close = ("--close",) if site.scenario.close else ()
        return (
            sys.executable, "-m", "benchmarks.perf.floors.constant", str(site.listen),
            str(site.application), "--body-bytes", str(PAGES[site.scenario.page]), *close,
        )  # fmt: skip


class Naive(Peer):
    """The proxy that one writes first."""

    name = "naive-h11"
    about = "uvloop, callbacks, h11 on both sides"
    mode = Mode.FORWARD

    def command(self, site: Site) -> Sequence[str]:
        """Return its command line."""
        return (
            sys.executable, "-m", "benchmarks.perf.floors.naive", str(site.listen),
            str(site.application),
        )  # fmt: skip


class AiohttpProxy(Peer):
    """An aiohttp server that asks with an aiohttp client."""

    name = "aiohttp"
    about = "aiohttp server and client on uvloop, bodies whole"
    mode = Mode.FORWARD
    module = "aiohttp"

    def command(self, site: Site) -> Sequence[str]:
        """Return its command line."""
        return (
            str(VENV / "bin" / "python"), "-m", "benchmarks.perf.pypi.aiohttp_proxy",
            str(site.listen), str(site.application),
        )  # fmt: skip


class ProxyPy(Peer):
    """proxy.py as a reverse proxy. It answers only the first request of a connection."""

    name = "proxy.py"
    about = "reverse proxy plugin, one worker; new connections only"
    mode = Mode.FORWARD
    module = "proxy.py"

    def serves(self, scenario: Scenario) -> bool:
        """Leave out all that has a second request on a connection."""
        return super().serves(scenario) and scenario.close

    def command(self, site: Site) -> Sequence[str]:
        """Return its command line."""
        return (
            "env", f"BENCHMARK_APPLICATION=127.0.0.1:{site.application}", f"HOME={site.folder}",
            str(VENV / "bin" / "python"), "-m", "proxy", "--hostname", "127.0.0.1",
            "--port", str(site.listen), "--num-workers", "1", "--num-acceptors", "1",
            "--log-level", "CRITICAL", "--enable-reverse-proxy",
            "--plugins", "benchmarks.perf.pypi.proxy_py.ForwardAll",
        )  # fmt: skip


class Mitmproxy(Peer):
    """mitmdump as a reverse proxy."""

    name = "mitmproxy"
    about = "mitmdump --mode reverse"
    mode = Mode.FORWARD
    module = "mitmproxy"

    def command(self, site: Site) -> Sequence[str]:
        """Return its command line."""
        return (
            str(VENV / "bin" / "mitmdump"), "-q",
            "--mode", f"reverse:http://127.0.0.1:{site.application}",
            "--listen-host", "127.0.0.1", "--listen-port", str(site.listen),
            "--set", "keep_host_header=true", "--set", f"confdir={site.folder}",
        )  # fmt: skip


PEERS: Final[Sequence[Peer]] = (
    Retter(), RetterCompiled(), RetterUnwatched(), Nginx(), NginxSameJob(), NginxGzip(),
    Haproxy(), Caddy(), NginxCache(), NginxStale(), HaproxyCache(), VarnishGrace(),
    Relay(), Constant(), Naive(),
)  # fmt: skip
PYPI_PEERS: Final[Sequence[Peer]] = (AiohttpProxy(), ProxyPy(), Mitmproxy())
SMOKE: Final = ("retter", "nginx", "nginx-stale", "floor-relay", "floor-constant")


def install(*packages: str) -> None:
    """Install packages from PyPI into an environment of their own.

    Raises:
        StartFailed: pip did not succeed.
    """
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", *packages],
        check=False,
    )
    if done.returncode:
        raise StartFailed(f"pip could not install {' '.join(packages)}")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """A started program."""

    def __init__(self, name: str, command: Sequence[str], port: int, folder: Path, core: int):
        """Start it on a core and wait until it accepts connections.

        Raises:
            StartFailed: It did not within START_S.
        """
        self.name, self.port = name, port
        self._words = folder / "output.txt"
        with self._words.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=ROOT,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        self.pids = tree(self._process.pid)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.alive():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=0.2),
            ):
                return
            time.sleep(0.05)
        raise StartFailed(f"{self.name} did not start: {self.last_words()}")

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """Return the end of what it has said."""
        return self._words.read_text(errors="replace").strip()[-600:]

    def look_again(self) -> None:
        """Read its processes again: some start theirs only after they listen."""
        self.pids = tree(self._process.pid)

    def stop(self) -> None:
        """End it and all that it has started."""
        if self.alive():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session: only its children
        self._process.wait()


def start_application(folder: Path, core: int) -> Running:
    """Start the application: nginx with static pages, and a POST location that reads its body.

    Raises:
        StartFailed: nginx did not start.
    """
    pages = folder / "pages"
    pages.mkdir(parents=True)
    for name in PAGES:
        (pages / f"{name}.html").write_bytes(page(name))
    locations = "".join(
        f"  location /{name}/ {{ try_files /{name}.html =404; }}\n" for name in PAGES
    )
    port, inner = free_port(), folder / "post.sock"
    configuration = nginx_frame(
        folder,
        http="open_file_cache max=16 inactive=1h; open_file_cache_valid 1h; sendfile on;",
        servers=f"""
default_type text/html;
upstream post {{ server unix:{inner}; keepalive 64; keepalive_requests 1000000000; }}
server {{
  listen unix:{inner};
  location / {{ return 200 "{"x" * PAGES["100b"]}"; }}
}}
server {{
  listen 127.0.0.1:{port} backlog=4096;
  root {pages};
  add_header Cache-Control "max-age=60";
  add_header X-Frame-Options SAMEORIGIN;
  add_header X-Content-Type-Options nosniff;
{locations}
  location /post/ {{
    proxy_pass http://post;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
  }}
}}
""",
    )
    return Running("application", nginx_command(folder, configuration), port, folder, core)

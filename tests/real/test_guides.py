"""The how-to guides with their own blocks: only ports, certificates and paths are replaced."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trustme

from tests.real.conftest import StartRetter, need
from tests.real.processes import DEADLINE_S, Program, RetterProgram, accepts, eventually, free_port
from tests.real.wire import fetch
from tests.support.pages import ROOT, blocks, command_lines

BROWSER: Final = {"Host": "shop.example", "Accept": "text/html", "Upgrade-Insecure-Requests": "1"}


def block(guide: str, language: str, first: str = "") -> str:
    """Return the block of a guide in that language that has this text in it."""
    [text] = [
        text
        for its, text in blocks(ROOT / f"docs/howto-{guide}.md")
        if its == language and first in text
    ]
    return text


def options(guide: str, upstream: int) -> list[str]:
    """Return the options of the guide's first RETTER, without where it listens."""
    words = next(
        words for words in command_lines(ROOT / f"docs/howto-{guide}.md") if "--listen" in words
    )
    at = words.index("--listen")
    words = [*words[:at], *words[at + 2 :]]
    words[words.index("--upstream") + 1] = f"127.0.0.1:{upstream}"
    return words


# Applications

DJANGO: Final = """
import sys
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

def page(request):
    request.session["seen"] = True
    scheme = "https" if request.is_secure() else "http"
    return HttpResponse(f"{scheme} {request.get_host()} {request.META['HTTP_X_FORWARDED_FOR']}")

BLOCK
settings.configure(
    SECRET_KEY="x" * 50, ALLOWED_HOSTS=["shop.example"], ROOT_URLCONF=__name__, DEBUG=False,
    SECURE_PROXY_SSL_HEADER=SECURE_PROXY_SSL_HEADER,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
)
urlpatterns = [path("", page)]
application = get_wsgi_application()
"""


def test_django(gunicorn: str, start_retter: StartRetter, tmp_path: Path) -> None:
    pytest.importorskip("django", reason="Django is not installed (pip install django)")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").write_text("")
    (tmp_path / "shop/wsgi.py").write_text(DJANGO.replace("BLOCK", block("django", "python")))
    line = block("django", "", "gunicorn").splitlines()[0].split()
    port = free_port()
    words = [word.replace(":8000", f":{port}") for word in line[1:]]
    application = Program(
        [sys.executable, "-m", gunicorn, *words, "--log-level", "warning"],
        environment={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        cwd=tmp_path,
    )
    try:
        eventually(lambda: accepts(port), "gunicorn listens")
        retter = start_retter(*options("django", port), "--trusted-proxies", "127.0.0.1")
        fields = BROWSER | {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
        first = fetch(retter.port, "GET", "/", fields)
        assert first.body == b"https shop.example 192.0.2.7, 127.0.0.1"
        cookie = {"Cookie": (first.get("Set-Cookie") or "").partition(";")[0]}
        assert fetch(retter.port, "GET", "/", fields | cookie).status == 200
        application.kill()
        again = fetch(retter.port, "GET", "/", fields | cookie)
        assert (again.status, again.body) == (200, first.body)
    finally:
        application.kill()


def test_node(start_retter: StartRetter, tmp_path: Path) -> None:
    node = need("node", "nodejs")
    (tmp_path / "server.js").write_text(block("node", "js"))
    port = free_port()
    assert "PORT=3000 HOST=127.0.0.1 node server.js" in block("node", "")
    application = Program(
        [node, "server.js"], {"PORT": str(port), "HOST": "127.0.0.1"}, cwd=tmp_path
    )
    try:
        eventually(lambda: accepts(port), "Node listens")
        retter = start_retter(*options("node", port))
        first = fetch(retter.port, "GET", "/a", BROWSER)
        assert first.body == b"<h1>/a for 127.0.0.1</h1>"
        application.kill()
        again = fetch(retter.port, "GET", "/a", BROWSER)
        assert (again.status, again.body) == (200, first.body)
    finally:
        application.kill()


def test_wordpress_is_told_of_https(php: str, start_retter: StartRetter, tmp_path: Path) -> None:
    page = "echo $_SERVER['HTTPS'] ?? 'off', ' ', $_SERVER['HTTP_HOST'];"
    (tmp_path / "index.php").write_text(f"<?php\n{block('wordpress', 'php')}\n{page}\n")
    port = free_port()
    application = Program([php, "-S", f"127.0.0.1:{port}", "index.php"], cwd=tmp_path)
    try:
        eventually(lambda: accepts(port), "PHP listens")
        retter = start_retter(*options("wordpress", port), "--trusted-proxies", "127.0.0.1")
        assert fetch(retter.port, "GET", "/", BROWSER).body == b"off shop.example"
        secure = fetch(retter.port, "GET", "/", BROWSER | {"X-Forwarded-Proto": "https"})
        assert secure.body == b"on shop.example"
    finally:
        application.kill()


# In front

ECHO: Final = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Echo).serve_forever()
"""


@pytest.fixture
def application() -> Iterator[tuple[Program, int]]:
    """An application that answers with the fields that it got."""
    port = free_port()
    program = Program([sys.executable, "-c", ECHO.replace("PORT", str(port))])
    eventually(lambda: accepts(port), "it listens")
    yield program, port
    program.kill()


def fetched(
    port: int, context: ssl.SSLContext | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the fields of a response, and those that the application got."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as plain:
        wrapped = context.wrap_socket(plain, server_hostname="shop.example") if context else plain
        with wrapped as sock:
            head = "".join([f"{name}: {value}\r\n" for name, value in BROWSER.items()])
            sock.sendall(f"GET /page HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
    first, _, body = answer.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in first.decode().splitlines()[1:]]
    if b"chunked" in first:
        body = body[body.index(b"{") : body.rindex(b"}") + 1]
    return {name.lower(): value for name, _, value in lines}, json.loads(body)


def check_in_front(
    application: tuple[Program, int], port: int, scheme: str, context: ssl.SSLContext | None = None
) -> None:
    """The application sees the visitor, and its last page is there when it has ended."""
    head, seen = fetched(port, context)
    assert head["x-retter"] == "backend"
    assert seen["x-forwarded-for"].split(",")[0].strip() == "127.0.0.1"
    assert (seen["x-forwarded-proto"], seen["host"]) == (scheme, "shop.example")
    application[0].kill()
    head, again = fetched(port, context)
    assert head["x-retter"] == "cache"
    assert again == seen


def test_behind_nginx(
    application: tuple[Program, int], start_retter: StartRetter, tmp_path: Path
) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.fail("nginx is not installed (Debian's package nginx-light brings it)")
    authority = trustme.CA()
    certificate = authority.issue_cert("shop.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "shop.pem"))
    retter = start_retter(*options("behind-nginx", application[1]))
    port = free_port()
    text = block("behind-nginx", "nginx").replace("127.0.0.1:8089", f"127.0.0.1:{retter.port}")
    text = re.sub(r"/etc/ssl/shop\.(pem|key)", str(tmp_path / "shop.pem"), text)
    text = text.replace("listen 8443", f"listen 127.0.0.1:{port}")
    places = " ".join(
        f"{name}_temp_path {tmp_path};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; events {{}}\n"
        f"http {{ access_log off; {places} {text} }}"
    )
    front = Program([nginx, "-e", "stderr", "-c", str(file)])
    try:
        eventually(lambda: accepts(port), "nginx listens")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        check_in_front(application, port, "https", context)
    finally:
        front.kill()


def test_behind_caddy(
    application: tuple[Program, int], start_retter: StartRetter, tmp_path: Path
) -> None:
    caddy = need("caddy", "caddy")
    retter = start_retter(*options("behind-caddy", application[1]))
    port = free_port()
    text = block("behind-caddy", "caddyfile").replace("127.0.0.1:8089", f"127.0.0.1:{retter.port}")
    # Without the certificate, which it would ask the internet for.
    text = text.replace("shop.example", f"http://shop.example:{port}")
    file = tmp_path / "Caddyfile"
    file.write_text(f"{{\n    admin off\n}}\n{text}")
    front = Program(
        [caddy, "run", "--adapter", "caddyfile", "--config", str(file)],
        {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
    )
    try:
        eventually(lambda: accepts(port), "Caddy listens")
        check_in_front(application, port, "http")
    finally:
        front.kill()


@pytest.mark.parametrize("trusted", [True, False])
def test_behind_cloudflare(
    application: tuple[Program, int], start_retter: StartRetter, tmp_path: Path, trusted: bool
) -> None:
    text = block("behind-cloudflare", "toml").replace(
        "127.0.0.1:8000", f"127.0.0.1:{application[1]}"
    )
    text = re.sub(r"^listen = .*$", "", text, flags=re.MULTILINE)
    if trusted:
        text = text.replace("trusted_proxies = [", 'trusted_proxies = [ "127.0.0.1",')
    file = tmp_path / "retter.toml"
    file.write_text(text)
    retter = start_retter("--config", str(file))
    fields = BROWSER | {
        "X-Forwarded-For": "192.0.2.7",
        "CF-Connecting-IP": "192.0.2.7",
        "CF-Ray": "1-VIE",
        "X-Forwarded-Proto": "https",
    }
    seen = json.loads(fetch(retter.port, "GET", "/page", fields).body)
    if trusted:
        assert seen["x-forwarded-for"].startswith("192.0.2.7")
        assert seen["x-forwarded-proto"] == "https"
    else:
        assert "192.0.2.7" not in str(seen)
        assert seen["x-forwarded-proto"] == "http"


# Tasks


def test_a_deploy_in_a_pause(start_retter: StartRetter, tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    script = f"import http.server\n{ECHO.replace('PORT', str(port))}"
    programs = [Program([sys.executable, "-c", script])]
    try:
        eventually(lambda: accepts(port), "it listens")
        retter: RetterProgram = start_retter(
            "--upstream", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"
        )
        assert fetch(retter.port, "GET", "/page", BROWSER).get("X-Retter") == "backend"
        log = tmp_path / "log"
        commands = tmp_path / "bin"
        commands.mkdir()
        # `systemctl restart` takes the application away, and gives a process time to come back.
        for name, body in {
            "systemctl": f'echo "$*" >>{log}; kill -KILL {programs[0].pid}',
            "retter": f'echo "retter $*" >>{log}; exec {sys.executable} -m retter "$@"',
            "curl": f'echo "curl" >>{log}; test -e {tmp_path}/healthy',
        }.items():
            (commands / name).write_text(f"#!/bin/sh\n{body}\n")
            (commands / name).chmod(0o755)
        deploy = Program(
            ["bash", "-c", block("deploy", "bash")],
            {
                "PATH": f"{commands}:{os.environ['PATH']}",
                "RETTER_ADMIN": f"127.0.0.1:{admin}",
            },
        )
        programs.append(deploy)
        eventually(
            lambda: log.exists() and "curl" in log.read_text(), "it waits for the application"
        )
        assert fetch(retter.port, "GET", "/page", BROWSER).get("X-Retter") == "cache"
        (tmp_path / "healthy").write_text("")
        programs.append(Program([sys.executable, "-c", script]))
        eventually(lambda: accepts(port), "it listens again")
        deploy.wait()
        done = log.read_text().split("\n")
        assert done[0] == "retter pause --for 2m" and done[1] == "restart shop"
        assert done[-2] == "retter resume"
        eventually(
            lambda: fetch(retter.port, "GET", "/page", BROWSER).get("X-Retter") == "backend",
            "visitors get fresh pages",
        )
    finally:
        for program in programs:
            program.kill()


def test_a_deploy_step_by_step(start_retter: StartRetter) -> None:
    lines = block("deploy", "", "retter pause").splitlines()
    assert [line.split()[0] for line in lines] == ["retter", "systemctl", "retter"]
    port, admin = free_port(), free_port()
    program = Program([sys.executable, "-c", ECHO.replace("PORT", str(port))])
    try:
        eventually(lambda: accepts(port), "it listens")
        retter = start_retter("--upstream", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}")
        fetch(retter.port, "GET", "/page", BROWSER)
        for line, source in ((lines[0], "cache"), (lines[2], "backend")):
            subprocess.run(
                [sys.executable, "-m", *line.split()],
                env=os.environ | {"RETTER_ADMIN": f"127.0.0.1:{admin}"},
                check=True,
                capture_output=True,
                timeout=DEADLINE_S,
            )
            assert fetch(retter.port, "GET", "/page", BROWSER).get("X-Retter") == source
    finally:
        program.kill()

"""The load: wrk on a core of its own, one window at a time, and single requests for warming."""

import json
import re
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.perf import visitors
from benchmarks.perf.scenarios import (
    NUMBER_DIGITS,
    PLACE,
    Heads,
    Scenario,
    head_template,
    mixed_heads,
)

REQUEST_TIMEOUT_S: Final = 5

# Each connection of a BY_CONNECTION scenario is a thread of wrk's, for wrk does not tell a script
# which connection a request is for.
_THREAD_HEAD: Final = """\
local count = 0
function setup(thread)
  thread:set("number", count)
  count = count + 1
end
local whole
function init(args)
  whole = table.concat({{ {parts} }}, string.format("%0{digits}d", {first} + number)) .. {body}
end
function request() return whole end
"""

_NEW_HEAD: Final = """\
local number = {first}
local format, concat, parts = string.format, table.concat, {{ {parts} }}
local body = {body}
function request()
  number = number + 1
  return concat(parts, format("%0{digits}d", number)) .. body
end
"""

_SAME_HEAD: Final = """\
local whole = {parts} .. {body}
function request() return whole end
"""

# A visitor has one program, and asks for pages one after another.
_MIXED_HEAD: Final = """\
math.randomseed({first})
local random, format = math.random, string.format
local page_of = {{ {pages} }}
local kinds = {{
{kinds}
}}
local function page() return format("{path}", page_of[random(#page_of)]) end
function request()
  local visitor = random({visitors})
  return kinds[visitor % #kinds + 1](page(), page(), format("%09d", visitor))
end
"""

_DONE: Final = """\
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nFIGURES {"requests":%d,"us":%d,"bytes":%d,"p50":%d,"p99":%d,"p999":%d,' ..
    '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""


class LoadFailed(Exception):
    """wrk or a single request did not do its work; the text says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """The counts of wrk in one window."""

    requests: int
    seconds: float
    bytes: int
    p50_us: int
    p99_us: int
    p999_us: int
    errors: int
    trouble: str  # which errors, empty without any


def _lua(text: str) -> str:
    """Return a Lua string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\r", "\\r").replace("\n", "\\n") + '"'


def script(scenario: Scenario, first: int) -> str:
    """Return wrk's script for one window.

    Args:
        scenario: What is asked.
        first: The number of the first head. Heads are never seen before only if no window has
            used these numbers.
    """
    if scenario.heads is Heads.MIXED:
        return _mixed_script(scenario, first) + _DONE
    pieces = [_lua(piece) for piece in head_template(scenario).split(PLACE)]
    template = {
        Heads.REPEATED: _SAME_HEAD,
        Heads.BY_CONNECTION: _THREAD_HEAD,
        Heads.UNSEEN: _NEW_HEAD,
    }[scenario.heads]
    body = f'string.rep("x", {scenario.body_bytes})'
    text = template.format(parts=", ".join(pieces), body=body, first=first, digits=NUMBER_DIGITS)
    return text + _DONE


def _mixed_script(scenario: Scenario, first: int) -> str:
    heads, pages = mixed_heads(scenario)
    path = visitors.page_path(scenario.page, 1234).replace("1234", "%04d")
    return _MIXED_HEAD.format(
        first=first,
        pages=", ".join([str(number) for number in visitors.samples(pages)]),
        kinds=",\n".join([_lua_function(head) for head in heads]),
        path=path,
        visitors=visitors.VISITORS,
    )


def _lua_function(head: str) -> str:
    """Return a Lua function that fills a head."""
    names = {visitors.PAGE: "page", visitors.REFERER: "referer", visitors.VISITOR: "visitor"}
    parts = re.split(r"(\{page\}|\{from\}|\{visitor\})", head)
    joined = " .. ".join([names.get(part) or _lua(part) for part in parts if part])
    return f"function(page, referer, visitor) return {joined} end"


def command(scenario: Scenario, port: int, seconds: int, script_file: Path, core: int) -> list[str]:
    """Return wrk's command line."""
    threads = scenario.connections if scenario.heads is Heads.BY_CONNECTION else 1
    return [
        "taskset", "-c", str(core),
        "wrk", "-t", str(threads), "-c", str(scenario.connections), "-d", f"{seconds}s",
        "--timeout", f"{REQUEST_TIMEOUT_S}s", "-s", str(script_file), f"http://127.0.0.1:{port}/",
    ]  # fmt: skip


def read_figures(output: str) -> Load:
    """Return the figures that the script has written at wrk's end.

    Raises:
        LoadFailed: There are none.
    """
    if not (found := re.search(r"^FIGURES (.*)$", output, re.MULTILINE)):
        raise LoadFailed(f"wrk gave no figures: {output.strip()[-400:]}")
    raw: dict[str, int] = json.loads(found[1])
    kinds = ("connect", "read", "write", "status", "timeout")
    return Load(
        requests=raw["requests"],
        seconds=raw["us"] / 1e6,
        bytes=raw["bytes"],
        p50_us=raw["p50"],
        p99_us=raw["p99"],
        p999_us=raw["p999"],
        errors=sum(raw[kind] for kind in kinds),
        trouble=", ".join(f"{raw[kind]} {kind}" for kind in kinds if raw[kind]),
    )


def run_wrk(
    scenario: Scenario, port: int, seconds: int, first: int, folder: Path, core: int
) -> Load:
    """Load a proxy for some seconds.

    Raises:
        LoadFailed: wrk ended with an error.
    """
    script_file = folder / "load.lua"
    script_file.write_text(script(scenario, first))
    try:
        done = subprocess.run(
            command(scenario, port, seconds, script_file, core),
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"wrk did not end {error.timeout:.0f} s after its start") from error
    if done.returncode:
        raise LoadFailed(f"wrk ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return read_figures(done.stdout)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as read from the wire."""

    status: int
    fields: dict[str, str]  # names in lower case
    head_bytes: int
    body_bytes: int


def ask(port: int, request: bytes) -> Answer:
    """Send one request over a connection of its own and return its answer.

    Raises:
        LoadFailed: No whole answer with a Content-Length came back.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), REQUEST_TIMEOUT_S) as connection:
            connection.sendall(request)
            return _read_answer(connection)
    except OSError as error:
        raise LoadFailed(f"a single request failed: {error}") from error


def ask_for_all(port: int, requests: Iterable[bytes]) -> None:
    """Send requests one after another over one connection. Their answers have a Content-Length.

    Raises:
        LoadFailed: One was not answered with 200.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), REQUEST_TIMEOUT_S) as connection:
            for request in requests:
                connection.sendall(request)
                answer = _read_answer(connection)
                if answer.status != 200:
                    raise LoadFailed(f"a page to be stored was answered with {answer.status}")
    except OSError as error:
        raise LoadFailed(f"a page could not be stored: {error}") from error


def _read_answer(connection: socket.socket) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if fields.get("transfer-encoding") == "chunked":
        while not body.endswith(b"0\r\n\r\n"):
            body += _receive(connection)
        return Answer(int(status_line.split(" ")[1]), fields, len(head) + 4, _chunked_bytes(body))
    length = int(fields.get("content-length", "0"))
    received = len(body)
    while received < length:
        received += len(_receive(connection))
    return Answer(int(status_line.split(" ")[1]), fields, len(head) + 4, received)


def _chunked_bytes(body: bytes) -> int:
    """Return the octets in a chunked body."""
    size, at = 0, 0
    while chunk := int(body[at : (end := body.index(b"\r\n", at))], 16):
        size += chunk
        at = end + 2 + chunk + 2
    return size


def _receive(connection: socket.socket) -> bytes:
    if data := connection.recv(1 << 18):
        return data
    raise LoadFailed("the connection ended before the answer did")

"""Lines of the access log: their forms, what is sampled, and what never stands in one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from retter.base.counters import Counters
from retter.store.owner import OwnerRules
from retter.telemetry.access_log import AccessLog
from tests.support.harness import FakeProxy, get, reply

COMBINED = re.compile(
    r'(?P<client>\S+) - - \[(?P<time>[^]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) '
    r'(?P<bytes>\d+|-) "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"'
)


class Logged:
    """A proxy with an access log."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.path = folder / "access.log"
        self.proxy = FakeProxy(access_log=str(self.path), **settings)
        self.client = self.proxy.client()

    def ask(self, request: bytes, answer: bytes = b"") -> None:
        self.client.sends(request)
        self.proxy.upstream.sends(answer or reply())

    def lines(self) -> list[str]:
        self.proxy.advance(0.05)
        return self.path.read_text().splitlines()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


def test_every_field(tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    logged.client.sends(get("/page?x=1"))
    logged.proxy.loop.now += 0.0123
    logged.proxy.upstream.sends(reply(b"12345"))
    (record,) = logged.records()
    assert record.pop("time") > 1_700_000_000
    assert record == {
        "client": "192.0.2.7",
        "method": "GET",
        "host": "shop.example",
        "target": "/page?x=1",
        "status": 200,
        "source": "backend",
        "reason": "admitted",
        "bytes": 5,
        "took_ms": 12.3,
        "owner": "everyone",
    }


def test_an_answer_in_pieces(tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    logged.client.sends(get("/long"))
    logged.proxy.loop.now += 0.002
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    logged.proxy.upstream.sends(head + b"3\r\nabc\r\n")
    logged.proxy.loop.now += 0.010
    logged.proxy.upstream.sends(b"5\r\ndefgh\r\n0\r\n\r\n")
    (record,) = logged.records()
    assert (record["bytes"], record["first_byte_ms"], record["took_ms"]) == (8, 2.0, 12.0)


def test_bytes_of_a_stored_answer_and_of_a_client_that_left(tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    logged.ask(get("/"), reply(bytes(1000)))
    logged.ask(get("/"), reply(b"broken", status="500 Oh"))
    logged.client.sends(get("/other"))
    logged.proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(30))
    logged.client.resets()
    told = [(r["source"], r["status"], r["reason"], r["bytes"]) for r in logged.records()]
    assert told == [
        ("backend", 200, "admitted", 1000),
        ("cache", 200, "upstream-status", 1000),
        ("backend", 200, "client-gone", 30),
    ]


@pytest.mark.parametrize(("share", "noted"), [(1.0, 100), (0.5, 50), (0.25, 25), (0.01, 1)])
def test_a_share_of_the_good_answers_and_all_errors(
    tmp_path: Path, share: float, noted: int
) -> None:
    logged = Logged(tmp_path, access_log_sample=share)
    for number in range(100):
        logged.ask(get(f"/{number}"))
    for _ in range(7):
        logged.ask(get("/missing"), reply(status="404 Not Found"))
    logged.ask(get("/broken"), reply(status="500 Oh"))
    statuses = [record["status"] for record in logged.records()]
    assert abs(statuses.count(200) - noted) <= 1
    assert (statuses.count(404), statuses.count(500)) == (7, 1)
    shares = {record.get("sample") for record in logged.records() if record["status"] == 200}
    assert shares == ({None} if share == 1 else {share})


def test_the_combined_format(tmp_path: Path) -> None:
    logged = Logged(tmp_path, access_log_format="combined")
    logged.ask(
        get(
            "/a b".replace(" ", "%20"),
            headers={
                "Referer": "https://shop.example/?q=1",
                "User-Agent": 'odd "agent" \\ \xe4\x9b',
            },
        )
    )
    logged.client.sends(b"nonsense\r\n\r\n")
    lines = logged.lines()
    found = [COMBINED.fullmatch(line) for line in lines]
    assert all(found), lines
    first, second = (match.groupdict() for match in found if match is not None)
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", first.pop("time"))
    assert first == {
        "client": "192.0.2.7",
        "request": "GET /a%20b HTTP/1.1",
        "status": "200",
        "bytes": "5",
        "referer": "https://shop.example/?q=1",
        "agent": 'odd \\"agent\\" \\\\ \xe4\\x9b',
    }
    assert (second["request"], second["status"], second["bytes"]) == ("-", "400", "-")


# What could end a field or a line, or speak to a terminal.
HOSTILE = b'a"b\\c\x1b[2J\x7f\x85\x9b31m\x07\x01' + b"\xe4 d"


def test_the_combined_format_with_the_lane(tmp_path: Path) -> None:
    """One more field at the end; a tool that knows the format alone reads the rest."""
    rules, counters = OwnerRules(secret=b"s" * 32), Counters()
    log = AccessLog(str(tmp_path / "log"), rules, counters, combined=True, with_lane=True)
    for lane in ("heavy", ""):
        log.add("192.0.2.7", None, None, 503, "retter", "fair-share", 0.1, lane=lane)
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line[-9:] for line in lines] == ['"-" heavy', '"-" "-" -']


@pytest.mark.parametrize("form", ["json", "combined"])
@pytest.mark.parametrize(
    "where",
    [
        "method",
        "target",
        "Host",
        "Referer",
        "User-Agent",
        "X-Real-IP",
        "X-Forwarded-For",
    ],
)
def test_no_field_can_forge_another(tmp_path: Path, form: str, where: str) -> None:
    """Whatever octets are let in by the parser: each line is one line, and each field one field."""
    logged = Logged(tmp_path, access_log_format=form, trusted_proxies=["192.0.2.0/24"])
    tried = [bytes([octet]) for octet in range(256) if octet not in b"\r\n"] + [
        HOSTILE,
        b'" 200 1 "x" "y',
        b'", "status": 200, "x": "',
        b"::1%a b",
        b'fe80::1%"',
    ]
    for value in tried:
        head = {"method": b"GET", "target": b"/", "Host": b"shop.example"}
        fields = b""
        if where in head:
            head[where] = value
        else:
            fields = b"%b: %b\r\n" % (where.encode(), value)
        client = logged.proxy.client(
            b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (*head.values(), fields)
        )
        if logged.proxy.upstreams and not logged.proxy.upstream.closed:
            logged.proxy.upstream.sends(reply())
        client.resets()
    logged.proxy.advance(1)
    text = logged.path.read_bytes().decode()
    assert not re.search("[\0-\t\v-\x1f\x7f-\x9f]", text)
    lines = text.splitlines()
    assert len(lines) == len(tried)
    for line in lines:
        if form == "json":
            assert json.loads(line)["status"] in (0, 200, 400, 405, 501)
        else:
            found = COMBINED.fullmatch(line)
            assert found is not None, line
            assert found["status"] in ("200", "400", "405", "499", "501")


@pytest.mark.parametrize("form", ["json", "combined"])
def test_no_secret_in_either_format(tmp_path: Path, form: str) -> None:
    logged = Logged(tmp_path, access_log_format=form)
    logged.ask(
        get(
            "/a;jsessionid=topsecret0123456789?PHPSESSID=topsecret0123456789",
            headers={
                "Cookie": "PHPSESSID=topsecret0123456789",
                "Authorization": "Bearer topsecret0123456789",
                "Referer": "https://shop.example/b?PHPSESSID=topsecret0123456789",
            },
        )
    )
    (line,) = logged.lines()
    assert "topsecret" not in line
    assert "/a?(session)" in line


def test_lines_do_not_wait_for_the_tick_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retter.telemetry.access_log.LINES_MAX", 10)
    logged = Logged(tmp_path)
    for number in range(10):
        assert logged.path.read_text() == ""
        logged.ask(get(f"/{number}"))
    assert logged.path.read_text().count("\n") == 10

"""The overload benchmark's arithmetic: what counts as fresh again, as trouble, as a bar met."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import nan
from pathlib import Path
from typing import Any

import pytest

from benchmarks.overload import __main__ as overload
from benchmarks.overload import blog, crawl, fastcgi
from benchmarks.overload.applications import capacity_of
from benchmarks.overload.blog import Blog
from benchmarks.overload.crawl import plan_of
from benchmarks.overload.crawl_crowd import Crowd
from benchmarks.overload.dials import Dials
from benchmarks.overload.fastcgi import closed_loop, fpm_configuration, nginx_configuration
from benchmarks.overload.peers import PEERS, Nothing, Peer, Process, StartFailed
from benchmarks.overload.php import PhpShop
from benchmarks.overload.report import block, show, write
from benchmarks.overload.scenarios import SCENARIOS, Bar, Scenario, at_least, quick
from benchmarks.overload.trial import (
    Trial,
    figures_of,
    fresh_again,
    pages_of,
)
from retter.demo.knobs import Knobs
from retter.demo.load_plan import LoadPlan, Phase
from retter.demo.load_report import LoadReport, Sample

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def sample(at: float, *, stored: bool = False, **changes: Any) -> Sample:
    made = -5.0 if stored else 0.01
    plain = Sample(
        at=at, latency=0.02, post=False, status=200, source="", made_after=made, error="", target=0
    )
    return plain._replace(**changes)


def test_fresh_again_is_the_first_second_that_is_fresh_throughout() -> None:
    every = [n / 100 for n in range(1000, 2000)]
    assert fresh_again([sample(at) for at in every], 10, 20) == 0
    late = [sample(at, stored=at < 12.31) for at in every]
    assert fresh_again(late, 10, 20) == pytest.approx(2.3, abs=0.11)
    single = [sample(at, stored=at == 10.5) for at in every]
    assert fresh_again(single, 10, 20) == 0  # one in a hundred
    assert fresh_again([sample(at, stored=True) for at in every], 10, 20) is None
    assert fresh_again([], 10, 20) is None


def test_the_figures_of_a_stress() -> None:
    scenario = replace(BY_NAME["5x"], calm_s=5.0, stress_s=10.0, after_s=5.0)
    plan = LoadPlan(url="http://x", phases=(Phase(20, 1),), targets=("/known", "/unknown"))
    samples = [
        sample(4.0, stored=True),  # before the stress
        sample(5.5),
        sample(6.0, stored=True, latency=0.001),
        sample(7.0, status=503, target=1),
        sample(8.0, status=0, error="timeout", latency=10.0),
        sample(9.0, post=True),
        sample(9.5, post=True, status=500),
        sample(16.0),
    ]
    figures = figures_of(scenario, LoadReport(plan, 1, samples), covered=1, capacity=160.0)
    assert figures["goodput"] == pytest.approx(2 / 10 / 160)
    assert figures["stored"] == 0.25
    assert figures["trouble"] == pytest.approx(1 / 3)  # the 503 had nothing to be answered with
    assert figures["unknown_shed"] == 1.0
    assert figures["refused"] == 0.5  # that, and the one without an answer
    assert figures["get_max"] == 10.0  # who got no answer has waited, too
    assert figures["post_ok"] == 0.5
    assert figures["first_s"] == pytest.approx(1.001)
    assert figures["again_s"] == pytest.approx(0.1, abs=0.11)


def test_bars() -> None:
    assert Bar("x", 1.0).met(1.0)
    assert not Bar("x", 1.0).met(1.1)
    assert at_least("x", 1.0).met(1.0)
    assert not at_least("x", 1.0).met(0.9)
    assert not Bar("x", 1.0).met(None)
    assert not Bar("x", 1.0).met(nan)


@pytest.mark.parametrize("scenario", [*SCENARIOS, *map(quick, SCENARIOS)], ids=lambda s: s.name)
def test_scenarios_are_sound(scenario: Scenario) -> None:
    knobs = Knobs().changed(scenario.knobs)
    for event in scenario.events:
        knobs = knobs.changed(event.knobs)
        assert 0 <= event.at_s <= scenario.stress_s
    figures = figures_of(scenario, LoadReport(LoadPlan(url="http://x"), 0), 1, 160.0)
    if scenario.crawlers:
        crowd = Crowd(1, plan_of(scenario, 40.0, seed=1))
        figures = crawl.figures_of(scenario, crowd, 40.0)
    known = {*figures, "changes", "stored_per_failure", "dials_per_s", "proxy_cpu"}
    assert {bar.figure for bar in scenario.bars} <= known
    assert len(pages_of(scenario, 100)) == 100
    assert capacity_of(scenario) > 30
    # POSTs are never refused, so that alone they must be within the capacity.
    assert scenario.rate * scenario.post_share < 1


def test_the_other_route_is_a_share_of_the_pages() -> None:
    pages = pages_of(BY_NAME["slow-route"], 100)
    assert sum(page.startswith("/api/") for page in pages) == 25


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.name)
def test_peers_are_told_where_to_listen(peer: Peer, tmp_path: Path) -> None:
    command = peer.command(12345, 23456, tmp_path, workers=8)
    if isinstance(peer, Nothing):
        assert command == ()
        return
    told = " ".join(command) + "".join(f.read_text() for f in tmp_path.iterdir() if f.is_file())
    assert "127.0.0.1:12345" in told
    assert "23456" in told


def test_a_figure_that_a_peer_does_not_have_is_no_missed_bar() -> None:
    scenario = replace(BY_NAME["pool-4x"], bars=(Bar("changes", 3), Bar("again_s", 1.0)))
    assert Trial(scenario, "nginx", {"again_s": 0.5}, {}, []).missed() == []
    assert Trial(scenario, "retter", {"changes": 4.0, "again_s": None}, {}, []).missed() == [
        "changes",
        "again_s",
    ]


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo no such luck >&2; exit 1"], core=None, log=tmp_path / "l")
    try:
        with pytest.raises(StartFailed, match="no such luck"):
            process.wait_for_port(1)
    finally:
        process.stop()


def test_the_table_and_the_file(tmp_path: Path) -> None:
    scenario = replace(BY_NAME["refused"], bars=(Bar("get_p99", 0.02), Bar("dials_per_s", 2.0)))
    figures = {"get_p99": 0.5, "dials_per_s": 1.0, "stored": nan, "goodput": 0.25, "again_s": None}
    ours = Trial(scenario, "retter", figures, {}, [])
    failed = Trial(scenario, "nginx", {}, {}, [], error="failed: no port")
    assert ours.missed() == ["get_p99"]
    lines = block(scenario, [ours, failed]).splitlines()
    assert "dials/s" in lines[1]
    assert "<=20.0ms" in lines[2]
    assert "0.50 s!" in lines[3]
    assert "1.0 " in lines[3]
    assert "failed: no port" in lines[4]
    write(tmp_path / "results" / "x.json", {"when": "now"}, [ours, failed])
    content = json.loads((tmp_path / "results" / "x.json").read_text())
    assert content["trials"][0]["figures"]["stored"] is None
    assert content["trials"][0]["missed"] == ["get_p99"]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("%", 1.0, "100 %"),
        ("%", 0.0, "0 %"),
        ("%", 0.9994, "99.9 %"),
        ("s", 0.0021, "2.1 ms"),
        ("s", 2.0, "2.00 s"),
        ("n", 1.23, "1.2"),
        ("s", None, "-"),
        ("%", nan, "-"),
    ],
)
def test_figures_are_shown_with_their_unit(kind: str, value: float | None, text: str) -> None:
    assert show(kind, value) == text


def test_choosing_scenarios_and_peers(capsys: pytest.CaptureFixture[str]) -> None:
    options = overload.parser().parse_args(["--only", "5x,restart", "--peers", "retter,nothing"])
    chosen = [(scenario.name, peer.name) for scenario, peer in overload.chosen(options)]
    # Without a store there is nothing to lose by a restart.
    assert chosen == [("5x", "retter"), ("5x", "nothing"), ("restart", "retter")]
    options = overload.parser().parse_args(["--only", "burst,pool-4x", "--peers", "retter"])
    names = [scenario.name for scenario, _ in overload.chosen(options)]
    bursts = [name for name in BY_NAME if name.startswith("burst-")]
    assert names == [*bursts, "pool-4x"]
    assert len(bursts) > 3
    assert overload.main(["--only", "7x"]) == 2
    assert overload.main(["--list"]) == 0
    assert "haproxy" in capsys.readouterr().out


def test_without_its_programs_the_php_shop_is_skipped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastcgi, "path_of", lambda name: None if name == "nginx" else name)
    options = overload.parser().parse_args(["--only", "php-5x,5x", "--peers", "retter"])
    assert [scenario.name for scenario, _ in overload.chosen(options)] == ["5x"]
    assert overload.main(["--only", "php-5x"]) == 0
    assert "php-5x is skipped: nginx is not installed." in capsys.readouterr().err


def test_without_its_programs_the_blog_is_skipped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastcgi, "path_of", lambda name: name)
    monkeypatch.setattr(blog.mariadb, "path_of", lambda name: None if name == "mariadbd" else name)
    assert overload.main(["--only", "database", "--peers", "retter"]) == 0
    assert "database is skipped: mariadbd is not installed." in capsys.readouterr().err


@pytest.mark.parametrize("root", [True, False])
def test_a_php_site_has_its_workers_and_loopback_ports(root: bool, tmp_path: Path) -> None:
    fpm = fpm_configuration(tmp_path, workers=8, ini={"display_errors": "1"}, root=root)
    assert "pm = static\npm.max_children = 8\n" in fpm
    assert "php_admin_value[display_errors] = 1\n" in fpm
    assert "listen.backlog = 511\n" in fpm
    assert ("user = root" in fpm) is root
    nginx = nginx_configuration(
        tmp_path, tmp_path / "shop.php", {"SHOP": "open"}, listen=12345, control=23456, root=root
    )
    assert "fastcgi_param SHOP open;" in nginx
    assert re.findall(r"listen (\S+?)[ ;]", nginx) == ["127.0.0.1:12345", "127.0.0.1:23456"]
    assert ("user root;" in nginx) is root
    # The shop's socket, then that of php-fpm's figures.
    assert re.findall(r"unix:(\S+);", nginx) == re.findall(r"listen = (\S+)", fpm)
    assert nginx.count("{") == nginx.count("}")
    # nginx inherits no fastcgi_param where a location has any, so that each must have them all.
    assert nginx.count("fastcgi_param REQUEST_METHOD $request_method;") == 2


def test_php_sites_have_no_knobs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="condition"):
        PhpShop(tmp_path).turn({"condition": "hung"})
    with pytest.raises(ValueError, match="condition"):
        Blog(tmp_path).turn({"condition": "hung"})
    with pytest.raises(ValueError, match="none of status, disguised"):
        Blog(tmp_path).tell_errors_as("nothing")


@contextmanager
def web_server(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_the_closed_loop_measures_an_answer_or_says_why_not() -> None:
    with web_server(200) as port:
        times = closed_loop(port, "/product/", 2, 0.1)
        assert len(times) >= 2
        assert min(times) > 0
    with web_server(500) as port, pytest.raises(StartFailed, match="status 500"):
        closed_loop(port, "/product/", 2, 0.1)


@pytest.mark.parametrize(
    ("looks", "why"), [(1, "HTTP Error 500: Internal Server Error"), (0, "a program ended before")]
)
def test_an_application_that_does_not_start_says_which_page_and_why(
    tmp_path: Path, looks: int, why: str
) -> None:
    class Ends(Process):
        """It runs for so many looks."""

        def __init__(self) -> None:
            self.left = looks

        def runs(self) -> bool:
            self.left -= 1
            return self.left >= 0

        def last_words(self) -> str:
            return "no such luck"

    site = fastcgi.FastCgi(tmp_path, tmp_path / "x.php", workers=1, params={}, ini={})
    site._processes = [Ends()]
    with web_server(500) as site.port, pytest.raises(StartFailed) as failed:
        site._wait_until_it_answers("/post-number-1/")
    assert str(failed.value).startswith(f"/post-number-1/ did not come: {why}")
    assert str(failed.value).endswith("; no such luck")


def test_dials_into_the_void_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    dials = Dials(port)
    for _ in range(5):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    exact, count = dials.exact, dials.stop()
    assert count == 5 if exact else count >= 5  # else others count, too

"""The metrics for a scraper: a text that the client library's parsers accept, and right figures."""

import json
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from retter.admin import process_figures
from retter.base.counters import LATENCY_BOUNDS_S, Histogram
from retter.base.reason import Reason
from retter.breaker import Mode
from retter.control import words
from retter.disk.opening import open_shelf
from tests.support.admin import FakeAdmin, admin_of, fetch
from tests.support.disk import Clock, Immediately, disk_settings
from tests.support.far import FakeServer, shelf_of
from tests.support.harness import FakeProxy, get, reply

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def busy() -> Iterator[FakeAdmin]:
    """A proxy where a little of everything has happened."""
    with admin_of(connect_hold_s=0) as admin:
        proxy = admin.proxy
        client = proxy.client()
        for path in ("/a", "/b", "/a"):
            client.sends(get(path))
            proxy.advance(0.02)
            proxy.upstream.sends(reply())
        client.sends(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        proxy.upstream.sends(reply(status="500 Oops"))
        admin.post("/api/circuit", "mode=open")
        client.sends(get("/a"))
        client.sends(b"nonsense\r\n\r\n")
        proxy.advance(1)
        yield admin


Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def values(admin: FakeAdmin, accept: str = "") -> Values:
    answer = admin.ask("/metrics", Accept=accept) if accept else admin.ask("/metrics")
    assert answer.status == 200
    parse: Any = parse_openmetrics if "openmetrics" in answer.fields["content-type"] else parse_text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(answer.body.decode())
        for sample in family.samples
    }


def value(admin: FakeAdmin, name: str, **labels: str) -> float:
    return values(admin)[name, tuple(sorted(labels.items()))]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (
            'application/openmetrics-text;version="1.0.0"',
            "application/openmetrics-text; version=1.0.0",
        ),
        # Versions that are none, and what is asked for after them.
        ("application/openmetrics-text;version=a.b", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.a", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=", "text/plain; version=0.0.4"),
        ("text/plain;version=x", "text/plain; version=0.0.4"),
        (f"text/plain;version=a,{OPENMETRICS}", "application/openmetrics-text; version=1.0.0"),
        ("text/plain;version=" + "9" * 5000, "text/plain; version=0.0.4"),
        ("a," * 10_000 + OPENMETRICS, "text/plain; version=0.0.4"),
    ],
)
def test_the_librarys_parsers_accept_it(busy: FakeAdmin, accept: str, content_type: str) -> None:
    answer = busy.ask("/metrics", Accept=accept) if accept else busy.ask("/metrics")
    assert answer.fields["content-type"].startswith(content_type)
    assert len(values(busy, accept)) > 150


def test_both_forms_say_the_same(busy: FakeAdmin) -> None:
    names = [
        {name for name, _ in values(busy, accept) if not name.endswith("_created")}
        for accept in ("", OPENMETRICS)
    ]
    assert names[0] == names[1]


def test_requests_by_method_source_status_and_reason(busy: FakeAdmin) -> None:
    expected = {
        ("GET", "backend", "2xx", "admitted"): 3,
        ("other", "backend", "5xx", "admitted"): 1,
        ("GET", "cache", "2xx", "forced-open"): 1,
        ("unread", "retter", "4xx", "bad-request"): 1,
    }
    found = {
        tuple(dict(labels)[name] for name in ("method", "source", "status", "reason")): count
        for (sample, labels), count in values(busy).items()
        if sample == "retter_requests_total"
    }
    assert found == expected


def test_histograms(busy: FakeAdmin) -> None:
    found = values(busy)
    for name in ("retter_upstream_first_byte_seconds", "retter_upstream_response_seconds"):
        counts = [
            (float(dict(labels)["le"]), count)
            for (sample, labels), count in found.items()
            if sample == f"{name}_bucket"
        ]
        assert counts == sorted(counts), "cumulative"
        assert dict(counts)[float("inf")] == found[f"{name}_count", ()]
    assert found["retter_upstream_response_seconds_bucket", (("le", "0.015"),)] == 0
    assert found["retter_upstream_response_seconds_count", ()] == 3, "good answers"
    assert found["retter_upstream_response_seconds_sum", ()] == pytest.approx(0.06)


def test_the_state(busy: FakeAdmin) -> None:
    states = {"CLOSED": 0, "LIMITING": 0, "OPEN": 1, "HALF-OPEN": 0}
    for state, is_in_it in states.items():
        assert value(busy, "retter_state", state=state) == is_in_it
    assert value(busy, "retter_mode", mode="open") == 1
    assert value(busy, "retter_transitions_total", state="OPEN", cause="forced-open") == 1
    busy.proxy.services.breaker.circuit.set_mode(busy.proxy.loop.now, Mode.AUTO)
    assert value(busy, "retter_transitions_total", state="LIMITING", cause="released") == 1


def test_store_memos_and_bytes(busy: FakeAdmin) -> None:
    assert value(busy, "retter_store_entries") == 2
    assert value(busy, "retter_store_hits_total", kind="own") == 2
    assert value(busy, "retter_store_evictions_total", kind="budget") == 0
    received = value(busy, "retter_client_bytes_total", direction="received")
    assert received == busy.proxy.services.counters.received > 100
    asked = value(busy, "retter_memo_hits_total", kind="request")
    asked += value(busy, "retter_memo_misses_total", kind="request")
    assert asked == 6, "five requests and what was none"


def test_what_went_wrong_at_the_edges(busy: FakeAdmin) -> None:
    assert value(busy, "retter_tls_failed_total") == 0
    assert value(busy, "retter_log_lines_dropped_total", log="access") == 0
    counters = busy.proxy.services.counters
    counters.tls_failed, counters.access_lines_dropped = 3, 7
    assert value(busy, "retter_tls_failed_total") == 3
    assert value(busy, "retter_log_lines_dropped_total", log="access") == 7
    assert value(busy, "retter_log_lines_dropped_total", log="own") >= 0


def test_counters_never_fall() -> None:
    with admin_of(connect_hold_s=0) as admin:
        proxy = admin.proxy
        before: dict[Any, float] = {}
        for number in range(12):
            client = proxy.client(get(f"/{number % 3}"))
            if number % 4 == 3:
                client.resets()
            proxy.upstream.sends(reply(status="500 Oops" if number % 5 == 4 else "200 OK"))
            proxy.client(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
            now = values(admin)
            for (name, labels), count in now.items():
                if name.endswith(("_total", "_bucket", "_count", "_sum")):
                    assert count >= before.get((name, labels), 0), name
            before = now


def test_labels_have_few_values(busy: FakeAdmin) -> None:
    """However many URLs, hosts and clients there are, the text does not grow with them."""
    size = len(values(busy))
    busy.post("/api/circuit", "mode=auto")
    for number in range(100):
        client = busy.proxy.client(
            get(f"/{'x' * number}", headers={"Host": f"h{number}"}),
            peername=(f"192.0.2.{number}", 1),
        )
        busy.proxy.upstream.sends(reply())
        client.resets()
    assert len(values(busy)) <= size + 3, "the transition's, and what never happened before"
    words = {word for _, labels in values(busy) for name, word in labels if name == "reason"}
    assert words <= {reason.value for reason in Reason}


def test_names_follow_the_rules(busy: FakeAdmin) -> None:
    text = busy.ask("/metrics").body.decode()
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(families) == len({name for name, _ in families}), "each once"
    for name, kind in families:
        assert name.startswith(("retter_", "process_"))
        assert (kind == "counter") == name.endswith("_total"), name
        assert not name.endswith(("_ms", "_kb", "_mb")), "base units"
    abouts = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    assert all(abouts[name].endswith(".") for name, _ in families)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "retter.admin.metrics", raising=False)
    for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
        monkeypatch.setitem(sys.modules, name, None)
    with admin_of() as admin:
        answer = admin.ask("/metrics")
        assert answer.status == 501
        assert "pip install prometheus_client" in answer.json["error"]


def test_figures_of_the_process(busy: FakeAdmin) -> None:
    found = values(busy)
    own = {
        name: found[f"process_{name}", ()]
        for name in (
            "resident_memory_bytes",
            "virtual_memory_bytes",
            "cpu_seconds_total",
            "open_fds",
            "max_fds",
            "start_time_seconds",
        )
    }
    assert own["virtual_memory_bytes"] > own["resident_memory_bytes"] > 10_000_000
    assert own["max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    started_s = time.time() - own["start_time_seconds"]
    assert 0 < started_s < 24 * 3600, "of this process, not of the machine, nor of the epoch"
    with socket.socket(), socket.socket():
        more = values(busy)["process_open_fds", ()]
    assert more == own["open_fds"] + 2


def test_figures_that_the_system_does_not_tell(
    busy: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object, **__: object) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(process_figures, "open", nothing, raising=False)
    monkeypatch.setattr(process_figures, "os", SystemStandIn(nothing))
    names = {name for name, _ in values(busy)}
    assert "process_max_fds" in names
    assert not names & {"process_open_fds", "process_start_time_seconds"}


class SystemStandIn:
    """`os` for one module alone: the test runner needs the real one."""

    def __init__(self, stat: Callable[..., object]) -> None:
        self.stat = stat

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def test_descriptors_are_counted_where_the_kernel_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    no_size = SystemStandIn(lambda _: SimpleNamespace(st_size=0))
    monkeypatch.setattr(process_figures, "os", no_size)
    listed = len(os.listdir("/proc/self/fd")) - 1
    assert process_figures.open_fds() == listed


def test_the_sum_of_a_histogram_never_falls() -> None:
    """It did by a rounding, which Prometheus takes for a new beginning, and counts it all again."""
    metrics = pytest.importorskip("retter.admin.metrics")
    with admin_of() as admin:
        admin.ask("/metrics")
        collector: Any = admin.admin.api._collector
        assert isinstance(collector, metrics.ProxyCollector)
        histogram, sums = Histogram(LATENCY_BOUNDS_S), list[float]()
        for total in (0.1 + 0.2, 0.3, 0.4):
            histogram.total = total
            family = collector._histogram("times", "Times.", histogram)
            sums += [one.value for one in family.samples if one.name.endswith("_sum")]
        assert sums == [0.1 + 0.2, 0.1 + 0.2, 0.4]
        before = collector
        admin.ask("/metrics")
        assert admin.admin.api._collector is before


def test_a_store_on_disk_has_figures_of_its_own(tmp_path: Path) -> None:
    """And what its pages in memory take is told apart from what the process needs."""
    made = disk_settings(tmp_path, connect_hold_s=0.0)
    clock: list[Any] = []
    shelf = open_shelf(
        made, Immediately(), Immediately(), lambda: clock[0].now if clock else 1000.0
    )
    admin = FakeAdmin(FakeProxy(made, shelf))
    clock.append(admin.proxy.loop)
    fetch(admin, get("/page"), reply(b"page"))
    admin.proxy.advance(6.0)
    shelf.read(b"*shop.example/page", admin.proxy.loop.now)
    families = {one.name: one for one in parse_text(admin.ask("/metrics").body.decode())}
    figures = {
        (one.name, *one.labels.values()): one.value
        for name, family in families.items()
        if name.startswith(("retter_disk", "retter_memory"))
        for one in family.samples
    }
    assert figures["retter_disk_entries",] == 1
    assert figures["retter_disk_commits_total",] == 1
    assert figures["retter_disk_dirty",] == 0
    assert figures["retter_disk_set_aside",] == 0
    assert figures["retter_disk_writes_total", "dropped"] == 0
    assert figures["retter_disk_read_seconds_count",] == 1
    assert figures["retter_memory_bytes", "anonymous"] > 1_000_000
    assert figures["retter_memory_bytes", "mapped"] > 0
    state = json.loads(admin.ask("/api/state").body)
    assert (state["disk"]["entries"], state["disk"]["commits"]) == (1, 1)
    assert {"dirty", "not_written", "set_aside", "bytes_used"} <= state["disk"].keys()
    assert {"anonymous_bytes", "mapped_bytes"} <= state["memory"].keys()
    admin.admin.close()
    admin.proxy.proxy.close()


def test_what_boxes_share_has_figures_of_its_own() -> None:
    clock = Clock()
    far = shelf_of(FakeServer(clock), clock, "one")
    admin = FakeAdmin(FakeProxy(far=far))
    far.tick(clock.now)
    families = parse_text(admin.ask("/metrics").body.decode())
    figures = {
        (one.name, *one.labels.values()): one.value
        for family in families
        for one in family.samples
        if family.name.startswith("retter_shared")
    }
    assert (figures["retter_shared_connected",], figures["retter_shared_boxes",]) == (1, 1)
    assert figures["retter_shared_reads_total", "miss"] == 0
    assert figures["retter_shared_changes_total", "told"] == 0
    assert figures["retter_shared_failures_total",] == 0
    state = admin.state()
    assert state["shared"] == far.stats()
    assert dict(words.rows(state, 0.0))["shared"] == ("1 box, 0 pages written, 0 of 0 reads found")
    clock.now = admin.proxy.loop.now = 1060.0
    state = admin.state()
    assert state["situation"]["row"] == "shared store away"
    assert dict(words.rows(state, 0.0))["shared"] == "1 box; the server is away: no answer"

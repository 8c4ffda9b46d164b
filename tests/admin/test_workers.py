"""The figures of several workers: one of them answers for the whole."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse

from retter.admin import turns, worker_figures
from retter.admin.process_figures import max_fds, start_time_s
from retter.admin.watch import together
from retter.admin.whole import document_plus, plus, points_plus
from retter.admin.worker_figures import PRESENT_S, Board
from retter.admin.workers import tell_figures
from retter.base.shared_memory import SharedMemory, bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.proxy.secrets import Secrets
from retter.proxy.ticker import TICK_S
from retter.store.hints import UNANSWERED_MIN, ignoring
from tests.support.admin import FakeAdmin, admin_of, fetch, visit, why
from tests.support.harness import FakeLoop, get, reply


class Workers:
    """Two workers; the first one has the admin listener."""

    def __init__(self, stack: ExitStack, **settings: Any) -> None:
        self.stack = stack
        self.shared = divided(memoryview(bytearray(bytes_for(2))), 2)
        self.first = self.start(0, **settings)
        self.second = self.start(1, **settings)

    def start(self, index: int, **settings: Any) -> FakeAdmin:
        place = WorkerPlace(index, 2, index, self.shared)
        admin = self.stack.enter_context(admin_of(place=place, **settings))
        proxy = admin.proxy.proxy
        api = admin.admin.api if index == 0 else None
        tell_figures(proxy, admin.admin.watch, admin.admin.transitions, leads=index == 0, api=api)
        return admin

    def second_passes(self) -> None:
        for one in (self.second, self.first):
            one.proxy.advance(1.0)

    def ask(self, worker: FakeAdmin, times: int) -> None:
        client = worker.proxy.client()
        for _ in range(times):
            client.sends(get("/a"))
            worker.proxy.upstream.sends(reply())
        client.resets()

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        answer = self.first.ask("/metrics")
        assert answer.status == 200, answer.body
        text = answer.body.decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse(text)
            for sample in family.samples
        }


class InStep(Workers):
    """The same with one clock."""

    def __init__(self, stack: ExitStack, **settings: Any) -> None:
        self.loop, self.secrets = FakeLoop(), Secrets()
        super().__init__(stack, **settings)

    def start(self, index: int, **settings: Any) -> FakeAdmin:
        return super().start(index, own_loop=self.loop, secrets=self.secrets, **settings)

    def passes(self, seconds: float = 2.0, *alive: FakeAdmin) -> None:
        """Let time pass for those that live; what one tells another takes up to a second."""
        end = self.loop.now + seconds
        while self.loop.now < end - 1e-9:
            self.loop.now = min(end, self.loop.now + TICK_S)
            for one in alive or (self.second, self.first):
                one.proxy.proxy.ticker.tick(self.loop.now)
                one.proxy.settle()


@pytest.fixture
def workers() -> Iterator[Workers]:
    with ExitStack() as stack:
        yield Workers(stack)


@pytest.fixture
def crew() -> Iterator[InStep]:
    with ExitStack() as stack:
        yield InStep(stack)


def test_what_all_have_counted_is_added(workers: Workers) -> None:
    workers.ask(workers.first, 2)
    workers.ask(workers.second, 3)
    workers.second_passes()
    state = workers.first.state()
    assert state["totals"]["requests"] == 5 and state["minute"]["gets"]["fresh"] == 5
    assert state["latency_ms"]["p50"] is not None
    found = workers.metrics()
    assert sum([v for (name, _), v in found.items() if name == "retter_requests_total"]) == 5
    assert found["retter_upstream_response_seconds_count", ()] == 5


def test_each_worker_is_named_where_that_helps(workers: Workers) -> None:
    workers.second_passes()
    state = workers.first.state()
    assert [one["worker"] for one in state["workers"]] == [0, 1]
    assert state["memory"]["rss_bytes"] > state["workers"][0]["memory"]["rss_bytes"] > 0
    found = workers.metrics()
    assert found["retter_workers", ()] == 2
    for name in ("retter_worker_loop_lag_seconds", "retter_worker_resident_memory_bytes"):
        assert {labels for known, labels in found if known == name} == {
            (("worker", "0"),),
            (("worker", "1"),),
        }


def test_each_worker_is_told_by_itself(workers: Workers) -> None:
    workers.ask(workers.second, 15)
    waits = workers.second.proxy.client(get("/slow"))
    workers.second_passes()
    first, second = workers.first.state()["workers"]
    assert (first["leads"], second["leads"]) == (True, False)
    assert (first["requests_rate"], second["requests_rate"]) == (0, 16)
    assert (first["in_flight"], second["in_flight"]) == (0, 1)
    assert abs(first["since"] - time.time()) < 3600 and (first["restarts"] == 0)
    for _ in range(9):
        workers.second_passes()
    assert workers.first.state()["workers"][1]["requests_rate"] == 1.6
    workers.second_passes()
    assert workers.first.state()["workers"][1]["requests_rate"] == 0
    waits.resets()


def test_a_restart_is_counted_also_in_the_first_second_and_not_that_of_another_supervisor(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = workers.first.state()["workers"][1]["since"]
    for _ in range(2):
        workers.second = workers.start(1)
    second = workers.first.state()["workers"][1]
    assert second["restarts"] == 2 and second["since"] >= began
    monkeypatch.setattr("os.getppid", lambda: 4242)
    workers.second = workers.start(1)
    assert workers.first.state()["workers"][1]["restarts"] == 0


def test_a_worker_that_began_in_1970_has_the_right_time_when_the_clock_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, set_by_s = time.time, [-56 * 365 * 86_400.0]
    monkeypatch.setattr("time.time", lambda: real() + set_by_s[0])
    with ExitStack() as stack:
        workers = Workers(stack)
        set_by_s[0] = 0.0
        workers.second_passes()
        workers.second_passes()
        for one in workers.first.state()["workers"]:
            assert abs(one["since"] - time.time()) < 3600


def test_amounts_are_those_of_the_workers_that_live(workers: Workers) -> None:
    client = workers.second.proxy.client()
    workers.second_passes()
    assert workers.metrics()["retter_connections", ()] == 1
    assert workers.first.state()["connections"] == 1
    client.resets()
    workers.first.proxy.advance(PRESENT_S + 1)  # the second one is dead
    assert workers.metrics()["retter_connections", ()] == 0
    assert workers.metrics()["retter_workers", ()] == 1


def test_no_sum_falls_when_a_worker_is_replaced(workers: Workers) -> None:
    workers.ask(workers.second, 3)
    workers.second_passes()
    workers.second = workers.start(1)
    workers.ask(workers.second, 1)
    workers.second.proxy.advance(workers.first.proxy.loop.now - workers.second.proxy.loop.now)
    workers.second_passes()
    assert workers.first.state()["totals"]["requests"] == 4
    found = workers.metrics()
    assert sum([v for (name, _), v in found.items() if name == "retter_requests_total"]) == 4


def test_no_sum_falls_when_the_first_worker_is_replaced_right_after_it_was_asked(
    workers: Workers,
) -> None:
    workers.second_passes()
    workers.ask(workers.first, 3)
    before = workers.metrics()
    workers.first = workers.start(0)
    after = workers.metrics()
    names = [key for key in before if key[0] == "retter_requests_total"]
    assert sum([before[key] for key in names]) == 3
    assert [after[key] for key in names] == [before[key] for key in names]


def test_the_first_worker_begins_with_the_sum_and_not_with_a_peak(workers: Workers) -> None:
    workers.ask(workers.second, 30)
    workers.second_passes()
    workers.first = workers.start(0)
    assert workers.first.state()["rates"]["fresh"] == 0


# -- what keeps all of them busy


def test_the_slowest_routes_and_the_busiest_pages_are_those_of_all(workers: Workers) -> None:
    visit(workers.first, "/both/1")
    for worker, path in ((workers.second, "/both/1"), (workers.second, "/there/1")):
        visit(worker, path)
    waits = [
        worker.proxy.client(get(path))
        for worker, path in (
            (workers.first, "/both/1"),
            (workers.second, "/both/1"),
            (workers.second, "/there/1"),
        )
    ]
    workers.second_passes()
    workers.second_passes()
    state = workers.first.state()
    assert {one["route"]: one["requests"] for one in state["routes"]} == {
        "GET /both/*": 2,
        "GET /there/*": 1,
    }
    places = {one["url"].removeprefix("shop.example"): one for one in state["busiest"]}
    assert {name: one["places"] for name, one in places.items()} == {"/both/1": 2, "/there/1": 1}
    assert places["/there/1"]["share"] == 0.333
    for client in waits:
        client.resets()
    workers.first.proxy.advance(PRESENT_S + 1)  # the second one is dead
    assert [one["route"] for one in workers.first.state()["routes"]] == ["GET /both/*"]


def test_lanes_and_the_heaviest_clients_are_those_of_all(workers: Workers) -> None:
    for worker in (workers.first, workers.second):
        worker.post("/api/circuit", "mode=open&seconds=60")
    bot = {"User-Agent": "GPTBot/1.2"}
    for worker, number, headers in (
        (workers.first, 1, {}),
        (workers.second, 2, {}),
        (workers.second, 3, bot),
    ):
        client = worker.proxy.client(
            get(f"/new/{number}", headers=headers), (f"192.0.2.{number}", 4000)
        )
        client.resets()
    workers.second_passes()
    workers.second_passes()
    turns = workers.first.state()["turns"]
    assert sum([lane["requests"] for lane in turns["lanes"].values()]) == 3
    assert sorted([one["client"] for one in turns["heaviest"]]) == ["", "", "gptbot"]
    workers.first.proxy.advance(PRESENT_S + 1)  # the second one is dead
    turns = workers.first.state()["turns"]
    assert sum([lane["requests"] for lane in turns["lanes"].values()]) == 3, "no sum falls"
    assert [one["client"] for one in turns["heaviest"]] == [""]


def test_the_queue_and_its_lanes_are_those_of_all() -> None:
    with ExitStack() as stack:
        crew = InStep(stack, max_in_flight=1)
        crew.passes(0.1)  # they have seen each other
        peers = [
            worker.proxy.client(get(f"/{number}"), (f"192.0.2.{number}", 4000))
            for number, worker in enumerate((crew.first, crew.second, crew.second))
        ]
        assert why(crew.first)["limits"]["in_flight"] == 1
        assert why(crew.first)["limits"]["queue"] == 2, "at once"
        crew.passes(1.0)
        state = crew.first.state()
        assert (state["in_flight"], state["queue"]) == (1, 2)
        assert sum([lane["waiting"] for lane in state["turns"]["lanes"].values()]) == 2
        assert crew.metrics()["retter_queue", ()] == 2
        for peer in peers:
            peer.resets()


def test_what_visitors_get_is_that_of_all(crew: InStep) -> None:
    """The share of the last ten seconds, of which most came to the second worker."""
    crew.first.post("/api/circuit", "mode=open&seconds=60")
    crew.passes()
    for number in range(4):
        client = crew.second.proxy.client(get(f"/{number}"), (f"192.0.2.{number}", 4000))
        client.resets()
    crew.passes()
    before = crew.first.state()["turns"]["fresh_share"]["visitors"]
    assert before is not None
    for number in range(4):
        client = crew.first.proxy.client(get(f"/{number}"), (f"192.0.2.{number}", 4000))
        client.resets()
    assert crew.first.state()["turns"]["fresh_share"]["visitors"] == before


def test_a_client_of_two_workers_is_one_client(crew: InStep) -> None:
    crew.first.post("/api/circuit", "mode=open&seconds=60")
    crew.passes()
    for worker, number in ((crew.first, 1), (crew.second, 1), (crew.second, 2)):
        client = worker.proxy.client(get("/new"), (f"192.0.2.{number}", 4000))
        client.resets()
    crew.passes()
    assert crew.first.state()["turns"]["clients"] == 2
    assert crew.metrics()["retter_clients_told_apart", ()] == 2


def test_very_many_clients_are_counted_without_their_numbers(
    crew: InStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "CLIENTS_TOLD", 1)
    crew.first.post("/api/circuit", "mode=open&seconds=60")
    crew.passes()
    for worker, number in ((crew.first, 1), (crew.second, 1), (crew.second, 2)):
        client = worker.proxy.client(get("/new"), (f"192.0.2.{number}", 4000))
        client.resets()
    crew.passes()
    assert crew.first.state()["turns"]["clients"] == 3, "at most so many"


def test_a_hint_of_any_worker_is_given_once(crew: InStep) -> None:
    for worker in (crew.first, crew.second):
        worker.proxy.services.hints.takes_long(b"GET /poll", 30.0)
    crew.second.proxy.services.hints.given[b"popup"] = ignoring(b"popup")
    crew.passes()
    hints = crew.first.state()["hints"]
    assert len(hints) == 2 and "/poll" in hints[0] and "popup" in hints[1]
    assert hints[1] in why(crew.first, cookie="popup=1")["advice"]
    crew.passes(PRESENT_S + 1, crew.first)  # the second one is dead
    assert crew.first.state()["hints"] == hints
    crew.second = crew.start(1)
    crew.first = crew.start(0)
    crew.passes()
    assert crew.first.state()["hints"] == [], "until one of them sees it again"


def test_the_application_cannot_be_reached_if_no_worker_has_reached_it_since(
    crew: InStep,
) -> None:
    first, second = crew.first.proxy.services.pool, crew.second.proxy.services.pool
    assert crew.first.state()["upstream"]["fault"] == ""
    second.fault = "connection refused"
    crew.passes()
    assert crew.first.state()["upstream"]["fault"] == "connection refused"
    assert crew.first.state()["situation"]["row"] != "quiet"
    crew.ask(crew.first, 1)
    assert first.contacts == 1
    assert crew.first.state()["upstream"]["fault"] == "", "the first one has"
    first.fault = "timed out"
    crew.passes()
    assert crew.first.state()["upstream"]["fault"] == "timed out"
    first.fault = ""
    assert crew.first.state()["upstream"]["fault"] == ""


def test_the_situation_is_that_of_all(crew: InStep) -> None:
    """A request of the second worker waits, and the first one has none."""
    clients = [crew.second.proxy.client(get(f"/{number}")) for number in range(4)]
    crew.passes(15)
    facts = crew.first.admin.watch.all_facts(crew.first.proxy.loop.now)
    assert facts.connections == 4 and facts.met and facts.oldest_s == pytest.approx(14, abs=1.1)
    assert crew.first.state()["situation"]["row"] == "hung"
    for client in clients:
        client.resets()


def test_troubles_of_any_worker_are_those_of_all(crew: InStep) -> None:
    own = crew.first.admin.watch.own_facts(0.0)
    other = own._replace(
        disk_trouble="it is broken", log_trouble="no room", store_full=0.9, lag_s=0.5, scarce=True
    )
    both = together(own, [other])
    assert both.disk_trouble == "it is broken" and both.log_trouble == "no room"
    assert (both.store_full, both.lag_s, both.scarce) == (0.9, 0.5, True)
    assert together(other, [own])[7:] == both[7:]


def test_a_pause_holds_requests_of_all_workers(crew: InStep) -> None:
    crew.first.post("/api/pause", "seconds=60")
    crew.passes()
    waits = [crew.second.proxy.client(get("/a")), crew.first.proxy.client(get("/b"))]
    crew.passes()
    assert crew.first.state()["held"] == 2
    assert crew.first.post("/api/pause", "seconds=60").json["held"] == 2
    resumed = crew.first.post("/api/resume").json
    assert (resumed["released"], resumed["held"]) == (2, 0)
    for client in waits:
        client.resets()


def test_what_another_worker_has_judged_is_told(crew: InStep) -> None:
    """The first one was replaced, and meanwhile the second one has led."""
    crew.first.post("/api/circuit", "mode=open&seconds=60")
    crew.passes()
    crew.passes(PRESENT_S + 1, crew.second)  # the first one is dead
    assert crew.second.proxy.services.breaker.leads  # type: ignore[attr-defined]
    crew.second.post("/api/circuit", "mode=auto")
    crew.passes(1.0, crew.second)
    crew.first = crew.start(0)
    crew.passes()
    state = crew.first.state()
    assert [(one["from"], one["to"]) for one in state["events"]] == [
        ("CLOSED", "OPEN"),
        ("OPEN", "LIMITING"),
        ("LIMITING", "CLOSED"),
    ]
    trips = crew.first.ask("/api/trips").json["trips"]
    assert [one["to"] for one in trips] == ["OPEN", "LIMITING", "CLOSED"] and trips[2]["figures"]
    assert state["totals"]["transitions"] == 3, "what all of them do for an operator counts once"


def test_of_changes_with_very_many_figures_fewer_are_told(
    crew: InStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    trip = {"at": 1.0, "from": "CLOSED", "to": "OPEN", "cause": "failing", "words": "x" * 9000}
    monkeypatch.setattr(crew.second.admin.transitions, "told", lambda: [trip] * 8)
    crew.passes()
    assert len(crew.first.ask("/api/trips").json["trips"]) == 2


def test_counts_of_a_worker_that_was_replaced_stay(crew: InStep) -> None:
    crew.ask(crew.second, 3)
    crew.passes()
    before = crew.first.state()["store"]
    assert before["misses"] + before["hits"] > 0
    crew.second = crew.start(1)
    crew.passes()
    after = crew.first.state()["store"]
    assert {name: after[name] for name in ("hits", "misses", "evictions")} == {
        name: before[name] for name in ("hits", "misses", "evictions")
    }
    assert after["entries"] < before["entries"], "what it had in memory is lost"


def test_the_old_health_document_is_that_of_all(crew: InStep) -> None:
    crew.ask(crew.first, 2)
    crew.ask(crew.second, 3)
    crew.passes()
    health = crew.first.ask("/health").json
    assert (health["total-request-served"], health["cache-count"]) == (5, 2)
    crew.second = crew.start(1)
    crew.passes()
    assert crew.first.ask("/health").json["total-request-served"] == 5


def test_retter_is_as_old_as_its_first_worker(crew: InStep) -> None:
    crew.passes()
    crew.first, crew.second = crew.start(0), crew.start(1)
    crew.passes()
    assert crew.first.state()["uptime_s"] == pytest.approx(4, abs=0.1)
    assert crew.metrics()["retter_uptime_seconds", ()] == pytest.approx(4, abs=0.1)
    started = crew.metrics()["process_start_time_seconds", ()]
    assert started == start_time_s(os.getppid())


def test_the_slowest_loop_counts_and_all_descriptors(crew: InStep) -> None:
    crew.second.proxy.proxy.ticker.loop_lag_s = 0.5
    crew.passes()
    state = crew.first.state()
    assert state["loop_lag_ms"] == 500
    assert [one["loop_lag_ms"] for one in state["workers"]] == [0, 500]
    found = crew.metrics()
    assert found["process_max_fds", ()] == 2 * max_fds()


DISK = {
    "entries": 5, "bytes_used": 50, "dirty": 1, "dirty_bytes": 10, "index_bytes": 3, "commits": 2,
    "held_s_max": 0.1, "trouble": "", "set_aside": 0,
}  # fmt: skip
SHARED = {"connected": 1, "boxes": 2, "waiting": 1, "reads": 4, "trouble": ""}


def test_a_store_that_all_share_is_not_added_but_what_each_has_done_with_it() -> None:
    document: dict[str, Any] = {
        "connections": 0, "memory": {}, "queue": 0, "held": 0, "upstream": {}, "loop_lag_ms": 1,
        "store": {"entries": 1, "bytes": 1, "bytes_max": 1, "hits": 1}, "disk": DISK,
        "shared": SHARED,
    }  # fmt: skip
    other = document | {
        "disk": DISK | {"held_s_max": 0.2, "trouble": "it is broken"},
        "shared": SHARED | {"connected": 0, "trouble": "away"},
    }
    both = document_plus(document, [other])
    assert both["disk"] == DISK | {
        "dirty": 2, "dirty_bytes": 20, "index_bytes": 6, "held_s_max": 0.2,
        "trouble": "it is broken",
    }  # fmt: skip
    assert both["shared"] == SHARED | {"connected": 0, "waiting": 2, "trouble": "away"}
    assert both["store"] == {"entries": 2, "bytes": 2, "bytes_max": 2, "hits": 1}
    both = document_plus(other, [document])
    assert (both["disk"]["trouble"], both["shared"]["trouble"]) == ("it is broken", "away")


# -- whoever serves


def what_is_said(serving: int) -> dict[str, Any]:
    """Return all that the first worker says after some trouble that came to one of two workers."""
    with ExitStack() as stack:
        crew = InStep(stack, connect_hold_s=0, max_in_flight=2, queue_wait_s=30)
        crew.passes(1.0)
        worker = (crew.first, crew.second)[serving]
        proxy = worker.proxy
        for number in range(20):
            client = proxy.client(get(f"/good/{number % 6}"))
            crew.passes(0.1)  # the application works
            proxy.upstream.sends(reply(b"%d" % (number % 6)))
            client.resets()
        visit(worker, "/good/1", cookie="PHPSESSID=0123456789abcdef0123")
        fetch(
            worker, b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", reply(b"done")
        )
        fetch(worker, get("/fails"), reply(b"no", status="500 No"))
        fetch(worker, b"nonsense\r\n\r\n", b"")
        for number in range(UNANSWERED_MIN):
            headers = {"Cookie": f"popup_seen={number}"}
            client = proxy.client(get(f"/new/{number}", headers=headers))
            proxy.upstream.resets()
            client.resets()
            crew.passes(0.1)
        left = proxy.client(get("/leaves"))
        left.resets()
        crew.passes(2.0)
        crew.first.post("/api/circuit", "mode=open&seconds=60")
        crew.passes(1.0)
        for number in range(4):
            fetched = proxy.client(get(f"/good/{number}"), (f"192.0.2.{number}", 4000))
            fetched.resets()
        crew.first.post("/api/circuit", "mode=auto")
        crew.passes(1.0)
        waiting = [
            proxy.client(get(f"/slow/{number}"), (f"192.0.2.{number}", 4000)) for number in range(5)
        ]
        crew.passes(5.0)
        proxy.upstream.sends(reply(b"slow"))
        crew.passes(1.0)
        said: dict[str, Any] = {
            path: crew.first.ask(path).json
            for path in ("/api/state", "/api/trips", "/api/incidents", "/api/history", "/health")
        }
        # Those without a good answer are equally slow.
        said["/api/state"]["routes"].sort(key=lambda one: one["route"])
        said["why"] = why(crew.first, cookie="popup_seen=7")
        said["metrics"] = {f"{name} {labels}": v for (name, labels), v in crew.metrics().items()}
        for client in waiting:
            client.resets()
        return dict(flat(said))


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from flat(one, f"{path}.{name}".strip("."))
    elif isinstance(value, list) and value:
        for number, one in enumerate(value):
            yield from flat(one, f"{path}[{number}]")
    else:
        yield path, value


# What is of one process or of the moment, or follows from such: names, then the ends of names.
OF_A_PROCESS = (
    "/api/state.workers", "/api/state.memory", "/health.memory.sys", "/api/state.overhead_us",
    "metrics.retter_worker_", "metrics.retter_memory_bytes", "metrics.process_resident",
    "metrics.process_virtual", "metrics.process_cpu", "metrics.process_open_fds",
    "metrics.retter_overhead", "why.key.owner_id", "/api/history.until",
    # The leader takes in what another worker did up to a tick later.
    "metrics.retter_work_rate",
)  # fmt: skip
OF_THE_MOMENT = (
    ".at", ".first_at", ".began", ".since", "situation.lasted_s",
    # Of a client's work, measured by what was usual for the application when it got its place.
    "].demand", "].got", "].share",
)  # fmt: skip


def is_of_the_whole(path: str) -> bool:
    if path.startswith("/api/trips.") and (".breaker." in path or "rate" in path):
        return False  # they are those of the worker that judged
    return not path.startswith(OF_A_PROCESS) and not path.endswith(OF_THE_MOMENT)


def test_whoever_serves_the_first_worker_says_the_same() -> None:
    """All visitors come to the first worker, or all to the second one."""
    first, second = what_is_said(0), what_is_said(1)
    for said in (first, second):
        for path in [path for path in said if not is_of_the_whole(path)]:
            del said[path]
    assert len(first) > 500
    for path in ("state.queue", "state.turns.clients", "state.hints[0]", "trips.trips[0].to"):
        assert f"/api/{path}" in first
    assert first == second


# -- the board


def board_of(place: int, shared: SharedMemory) -> Board:
    return Board(shared, place)


def test_figures_that_are_half_written_are_those_of_before() -> None:
    shared = divided(memoryview(bytearray(bytes_for(1))), 1)
    writer, reader = board_of(0, shared), board_of(1, shared)
    assert reader.others() == {}
    assert writer.write({"at": 1.0})
    assert reader.others() == {0: {"at": 1.0}}
    writer.write({"at": 2.0})
    shared.figures[0][20] ^= 1
    assert reader.others() == {0: {"at": 1.0}}
    shared.figures[0][20] ^= 1
    assert reader.others() == {0: {"at": 2.0}}
    assert reader.present(2.0 + PRESENT_S) == {}


def test_a_worker_that_is_killed_while_it_writes_leaves_the_figures_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = divided(memoryview(bytearray(bytes_for(1))), 1)
    writer = board_of(0, shared)
    for at in (1.0, 2.0, 3.0):
        writer.write({"at": at})

    class Killed(Exception):
        pass

    class Head:
        """The head is written last: the worker is killed before that."""

        size, unpack_from = worker_figures._head.size, worker_figures._head.unpack_from

        @staticmethod
        def pack_into(*_: object) -> None:
            raise Killed

    monkeypatch.setattr(worker_figures, "_head", Head)
    with pytest.raises(Killed):
        writer.write({"at": 4.0})
    monkeypatch.undo()
    following = board_of(0, shared)
    assert following.before == {"at": 3.0}
    following.write({"at": 5.0})
    assert board_of(1, shared).others() == {0: {"at": 5.0}}


def test_figures_that_are_too_large_are_not_written() -> None:
    shared = divided(memoryview(bytearray(bytes_for(1))), 1)
    writer = board_of(0, shared)
    assert not writer.write({"at": 1.0, "much": "x" * shared.figures[0].nbytes})
    assert board_of(1, shared).others() == {}


numbers = st.integers(0, 1000)
nested: Any = st.recursive(
    numbers,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner)
    ),
    max_leaves=8,
)


@given(nested)
def test_twice_the_same_is_the_double(value: Any) -> None:
    def doubled(one: Any) -> Any:
        if isinstance(one, dict):
            return {name: doubled(inner) for name, inner in one.items()}
        return [doubled(inner) for inner in one] if isinstance(one, list) else 2 * one

    assert plus(value, value) == doubled(value)


def test_what_one_alone_has_is_kept() -> None:
    assert plus({"a": 1, "c": "x"}, {"b": 2, "c": "y"}) == {"a": 1, "b": 2, "c": "x"}
    labels = (("a", "1"),)
    told = [["n", [["a", "1"]], 2], ["m", [], 1]]
    assert points_plus([("n", labels, 1.0)], told) == [("n", labels, 3.0), ("m", (), 1.0)]
